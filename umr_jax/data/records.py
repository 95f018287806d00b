"""A data set from a list of pictures that somebody else has listed: what published sets share.

A module for one published data set reads its annotation files into `Record`s; this one reads the
pictures, on threads, leaves out what is of no use with a reason, and keeps the rest.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from umr_jax.data.example import Contents, Example, mask_box
from umr_jax.data.folder_files import BadItemError
from umr_jax.data.shrink import shrink
from umr_jax.data.threads import ordered_map

# An object must be this many pixels long to say anything about shape.
_SMALLEST_OBJECT = 8
_SHOWN = 30  # reasons that an error lists


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
  """One picture of a data set, not read yet."""

  name: str
  split: str  # "train", "test", or "" for neither
  read: Callable[[], Example]  # raises BadItemError with the reason where it is of no use


class RecordBuilder:
  """Builds a data set from records (`example.Builder`)."""

  def __init__(
    self,
    name: str,
    records: Sequence[Record],
    *,
    settings: Mapping[str, Any],
    margin: float,
    keypoint_names: Sequence[str] = (),
    keypoint_flip: Sequence[int] = (),
    meshes: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    skipped: Iterable[tuple[str, str]] = (),
  ):
    """Takes what the annotation files said; pictures are read by `examples`.

    Args:
      name: of the data set.
      records: in the order of the stream.
      settings: everything that decides what is built, as JSON values: a version of the reader, the
        options, and `file_stamps` of the files.
      margin: what is kept around an object, as a share of its longer side, on every side.
      keypoint_names: of the rows of the examples' keypoints.
      keypoint_flip: for each keypoint the one whose place it takes in a mirrored picture.
      meshes: by the examples' `shape`.
      skipped: (name, reason) of what the annotation files themselves ruled out.

    Raises:
      ValueError: when there is no record for training.
    """
    self.name = name
    self._records = [record for record in records if record.split]
    self._settings = {"margin": margin, **settings}
    self._margin = margin
    self._keypoint_names, self._keypoint_flip = tuple(keypoint_names), tuple(keypoint_flip)
    self._meshes = dict(meshes or {})
    self._skipped = list(skipped)
    self._splits: dict[str, list[int]] = {"train": [], "test": []}
    if not any(record.split == "train" for record in self._records):
      raise ValueError(self._nothing("its annotation files leave no picture for training"))

  def settings(self) -> dict[str, Any]:
    """Everything that decides what is built, as JSON values."""
    return {"source": self.name, **self._settings}

  def examples(self) -> Iterator[Example]:
    """The usable pictures, in the records' order.

    Raises:
      ValueError: when none for training is usable.
    """
    self._splits = {"train": [], "test": []}
    count = 0
    for record, (example, reason) in zip(
      self._records, ordered_map(self._try, self._records), strict=True
    ):
      if example is None:
        self._skipped.append((record.name, reason))
        continue
      self._splits[record.split].append(count)
      count += 1
      yield example
    if not self._splits["train"]:
      raise ValueError(self._nothing("no picture for training is usable"))

  def contents(self) -> Contents:
    """The splits, the names, the meshes and what was skipped."""
    return Contents(
      splits=self._splits,
      keypoint_names=self._keypoint_names,
      keypoint_flip=self._keypoint_flip,
      meshes=self._meshes,
      skipped=list(self._skipped),
    )

  def _try(self, record: Record) -> tuple[Example | None, str]:
    try:
      return shrink(record.read(), self._margin), ""
    except BadItemError as error:
      return None, str(error)

  def _nothing(self, what: str) -> str:
    reasons = "".join(f"\n  {name}: {reason}" for name, reason in self._skipped[:_SHOWN])
    more = len(self._skipped) - _SHOWN
    return (
      f"nothing to learn from in the data set {self.name}: {what}"
      + (f"; skipped:{reasons}" if reasons else "")
      + (f"\n  and {more} more" if more > 0 else "")
    )


def make_example(
  name: str,
  image: np.ndarray,
  mask: np.ndarray,
  *,
  parts: np.ndarray | None = None,
  keypoints: np.ndarray | None = None,
  camera: np.ndarray | None = None,
  shape: str | None = None,
) -> Example:
  """An example with its mask's box, if picture and mask are of any use.

  Args:
    name: of the picture.
    image: [H, W, 3] uint8.
    mask: [H, W] float32 in [0, 1].
    parts: see `Example`.
    keypoints: see `Example`.
    camera: see `Example`.
    shape: see `Example`.

  Raises:
    BadItemError: when the sizes differ, or the object is absent or tiny.
  """
  check_size(mask, image, "the mask")
  box = mask_box(mask)
  if box is None:
    raise BadItemError("the mask is empty (no value of at least half)")
  length = max(box[2] - box[0], box[3] - box[1])
  if length < _SMALLEST_OBJECT:
    raise BadItemError(
      f"the object is {length:.0f} pixels long, expected at least {_SMALLEST_OBJECT}"
    )
  return Example(
    name=name,
    image=image,
    mask=mask,
    box=box,
    parts=parts,
    keypoints=keypoints,
    camera=camera,
    shape=shape,
  )


def check_size(values: np.ndarray, image: np.ndarray, what: str) -> None:
  """Refuses a map of other sides than the picture's.

  Raises:
    BadItemError: naming both sizes.
  """
  if values.shape[:2] != image.shape[:2]:
    found, expected = (f"{a.shape[1]} x {a.shape[0]}" for a in (values, image))
    raise BadItemError(f"{what} is {found} pixels, the image (upright by its EXIF) {expected}")


def require_files(root: pathlib.Path, paths: Iterable[str], *, name: str, source: str) -> None:
  """Refuses a data set of which files are missing.

  Args:
    root: where the user says that it is.
    paths: files and folders below, as they come.
    name: of the data set.
    source: where it can be had, and what to do with it.

  Raises:
    FileNotFoundError: naming what is missing, where it comes from and where it belongs.
  """
  missing = [path for path in paths if not (root / path).exists()]
  if missing:
    raise FileNotFoundError(
      f"{name} is not complete in {root}: there is no {', no '.join(missing)}. {source}"
    )


def file_stamps(root: pathlib.Path, paths: Iterable[pathlib.Path]) -> list[list[Any]]:
  """Every file's name below `root`, size and time, for a fingerprint; of missing ones the name."""
  stamps: list[list[Any]] = []
  for path in sorted(paths):
    stamp: list[Any] = [str(path.relative_to(root))]
    if path.exists():
      status = path.stat()
      stamp += [status.st_size, status.st_mtime_ns]
    stamps.append(stamp)
  return stamps
