"""A data set from a list of records: what the builders of published data sets share.

A module for one published data set reads its annotation files into `Record`s; this one reads the
images, on threads, leaves out what is of no use with a reason, and keeps the rest.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from umr_jax.data.example import Contents, Example, Json, Meshes, frame_square, mask_box
from umr_jax.data.image_files import BadItemError
from umr_jax.data.threads import ordered_map
from umr_jax.data.transforms import Square, crop, move_camera, square_box

# An object must be this many pixels long to be of use.
_SMALLEST_OBJECT = 8
_SHOWN = 30  # reasons that an error lists
_LARGEST_STORED = 512  # pixels per side


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
  """One image of a data set, not read yet."""

  name: str
  split: str  # "train", "test", or "" for neither
  read: Callable[[], Example]  # raises BadItemError with the reason where it is of no use


class Keypoints(NamedTuple):
  """What the rows of the examples' keypoints are."""

  names: tuple[str, ...] = ()
  flip: tuple[int, ...] = ()  # for each the one whose place it takes in a mirrored image


class RecordBuilder:
  """Builds a data set from records (`example.Builder`)."""

  def __init__(
    self,
    name: str,
    records: Sequence[Record],
    *,
    settings: Mapping[str, Json],
    margin: float,
    keypoints: Keypoints | None = None,
    meshes: Meshes | None = None,
    skipped: Iterable[tuple[str, str]] = (),
  ):
    """Takes what the annotation files said; images are read by `examples`.

    Args:
      name: of the data set.
      records: in the order of the stream.
      settings: everything that decides what is built, as JSON values: a version of the reader, the
        options, and `file_stamps` of the files.
      margin: what is kept around an object, as a share of its longer side, on every side.
      keypoints: of the examples.
      meshes: by the examples' `shape`.
      skipped: (name, reason) of what the annotation files themselves ruled out.

    Raises:
      ValueError: when there is no record for training.
    """
    self.name = name
    self._records = [record for record in records if record.split]
    self._settings = {"margin": margin, **settings}
    self._margin = margin
    self._keypoints = keypoints or Keypoints()
    self._meshes = dict(meshes or {})
    self._skipped = list(skipped)
    self._splits: dict[str, list[int]] = {"train": [], "test": []}
    if not any(record.split == "train" for record in self._records):
      raise ValueError(self._nothing("its annotation files leave no image for training"))

  def settings(self) -> dict[str, Json]:
    """Everything that decides what is built, as JSON values."""
    return {"source": self.name, **self._settings}

  def examples(self) -> Iterator[Example]:
    """The usable images, in the records' order.

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
      raise ValueError(self._nothing("no image for training is usable"))

  def contents(self) -> Contents:
    """The splits, the names, the meshes and what was skipped."""
    return Contents(
      splits=self._splits,
      keypoint_names=self._keypoints.names,
      keypoint_flip=self._keypoints.flip,
      meshes=self._meshes,
      skipped=list(self._skipped),
    )

  def _try(self, record: Record) -> tuple[Example | None, str]:
    try:
      return crop_for_storage(record.read(), self._margin), ""
    except BadItemError as error:
      return None, str(error)

  def _nothing(self, what: str) -> str:
    return f"nothing to learn from in the data set {self.name}: {what}" + reasons(self._skipped)


def reasons(skipped: Sequence[tuple[str, str]]) -> str:
  """The end of a message: what was skipped, a line for each item; empty where nothing was."""
  lines = "".join(f"\n  {name}: {reason}" for name, reason in skipped[:_SHOWN])
  more = len(skipped) - _SHOWN
  return (f"; skipped:{lines}" if lines else "") + (f"\n  and {more} more" if more > 0 else "")


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
  """An example with its mask's box, if image and mask are of any use.

  Args:
    name: of the image.
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


def crop_for_storage(example: Example, margin: float) -> Example:
  """What is stored of an image: the square around its object, not larger than needed.

  Args:
    example: the whole image.
    margin: what is kept around the object, as a share of its longer side, on every side.

  Raises:
    BadItemError: when nothing is left of the object at the largest size that is stored.
  """
  square = square_box(example.box, padding=margin)
  # The margin is a share of the longer side in both directions: training squares are square.
  if square[2] > _LARGEST_STORED:
    return _downsampled(example, square)
  height, width = example.mask.shape
  left, top = max(math.floor(square[0]), 0), max(math.floor(square[1]), 0)
  right = min(math.ceil(square[0] + square[2]), width)
  bottom = min(math.ceil(square[1] + square[2]), height)
  window = (slice(top, bottom), slice(left, right))
  keypoints, camera = example.keypoints, example.camera
  if keypoints is not None:
    keypoints = keypoints - np.array([left, top, 0.0], np.float32)
  if camera is not None:
    x0, y0, side = frame_square(bottom - top, right - left)
    kept = (left + x0, top + y0, side)
    camera = move_camera(camera, source=frame_square(height, width), target=kept)
  x0, y0, x1, y1 = example.box
  return dataclasses.replace(
    example,
    image=example.image[window],
    mask=example.mask[window],
    parts=None if example.parts is None else example.parts[window],
    keypoints=keypoints,
    camera=camera,
    box=(x0 - left, y0 - top, x1 - left, y1 - top),
  )


def _downsampled(example: Example, square: Square) -> Example:
  """The square as a stored image of `_LARGEST_STORED` pixels a side."""
  size = _LARGEST_STORED
  small = crop(example, square, image_size=size)
  keypoints = small.keypoints
  if keypoints is not None:
    pixels = (keypoints[:, :2] + 1.0) * (size / 2.0)
    keypoints = np.column_stack([pixels, keypoints[:, 2]]).astype(np.float32)
  box = mask_box(small.mask)
  if box is None:
    raise BadItemError(f"nothing is left of the object at {size} pixels")
  return dataclasses.replace(
    example,
    image=np.round(255.0 * small.image).astype(np.uint8),
    mask=small.mask,
    parts=small.parts,
    keypoints=keypoints,
    camera=small.camera,
    box=box,
  )


def check_size(values: np.ndarray, image: np.ndarray, what: str) -> None:
  """Refuses a map of other sides than the image's.

  Args:
    values: [H, W, ...] the map.
    image: [H, W, 3].
    what: the map is, for the message.

  Raises:
    BadItemError: naming both sizes.
  """
  if values.shape[:2] != image.shape[:2]:
    found, expected = (f"{a.shape[1]} x {a.shape[0]}" for a in (values, image))
    raise BadItemError(f"{what} is {found} pixels, the image (upright by its EXIF) {expected}")


def require_files(root: pathlib.Path, paths: Iterable[str], *, name: str, source: str) -> None:
  """Refuses a data set of which files are missing.

  Args:
    root: the folder that the user names.
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


def file_stamps(root: pathlib.Path, paths: Iterable[pathlib.Path]) -> list[Json]:
  """Every file's name below a folder, size and time, for a fingerprint; of missing ones the name.

  Args:
    root: the folder.
    paths: of the files.
  """
  stamps: list[Json] = []
  for path in sorted(paths):
    stamp: list[Json] = [str(path.relative_to(root))]
    if path.exists():
      status = path.stat()
      stamp += [status.st_size, status.st_mtime_ns]
    stamps.append(stamp)
  return stamps
