"""Where OpenImages' files are, come from and go to; `openimages` reads them."""

import contextlib
import dataclasses
import pathlib
import re
import threading
from collections.abc import Iterable, Iterator, Mapping

import tqdm
from absl import logging

from umr_jax import files
from umr_jax.data.download import AbsentError, Archive, UnreachableError, fetch, unpack_files
from umr_jax.data.threads import ordered_map

CLASSES = ("class-descriptions-boxable.csv", "oidv7-class-descriptions-boxable.csv")
SOURCE = (
  "OpenImages' annotation files and masks (SPLIT-masks-0.zip to SPLIT-masks-f.zip, extracted into "
  "masks/SPLIT) come from storage.googleapis.com/openimages/web/download.html, images from "
  "open-images-dataset.s3.amazonaws.com/SPLIT/IMAGEID.jpg; those of the class are enough, in the "
  "folder SPLIT. With data.download what is missing is fetched."
)

_WORKERS = 8  # images that are fetched at once
_STORE = "https://storage.googleapis.com/openimages"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Addresses:
  """Where everything is fetched from."""

  tables: Mapping[str, tuple[str, str]]  # by name the address and the SHA-256, empty if unpublished
  masks: str  # a zip file, with the fields split and key, the first letter of its masks' names
  images: str  # with the fields split and image


# The checksum is that of tensorflow-datasets' `open_images_v4`; V4 to V7 have equally many training
# boxes. The other files have none.
ADDRESSES = Addresses(
  tables={
    CLASSES[0]: (f"{_STORE}/v5/{CLASSES[0]}", ""),
    "train-annotations-bbox.csv": (
      f"{_STORE}/2018_04/train/train-annotations-bbox.csv",
      "0646f6a18872519da5eb89a6420d23c1202bfb44c62f89bea8d1621817234309",
    ),
    **{
      name: (f"{_STORE}/v5/{name}", "")
      for name in (
        "validation-annotations-bbox.csv",
        "test-annotations-bbox.csv",
        "train-annotations-object-segmentation.csv",
        "validation-annotations-object-segmentation.csv",
        "test-annotations-object-segmentation.csv",
      )
    },
  },
  masks=f"{_STORE}/v5/{{split}}-masks/{{split}}-masks-{{key}}.zip",
  images="https://open-images-dataset.s3.amazonaws.com/{split}/{image}.jpg",
)


def class_file(root: pathlib.Path) -> pathlib.Path:
  """The list of classes: of the names that it has had, the one that is there, else the first.

  Args:
    root: the data set's folder.
  """
  return next((root / name for name in CLASSES if (root / name).exists()), root / CLASSES[0])


def annotation_files(root: pathlib.Path, split: str) -> tuple[pathlib.Path, pathlib.Path]:
  """The files of masks and of boxes of a split, whether they exist or not.

  Args:
    root: the data set's folder.
    split: train, validation or test.
  """
  boxes = root / f"{split}-annotations-bbox.csv"
  newer = root / f"oidv6-{split}-annotations-bbox.csv"
  masks = root / f"{split}-annotations-object-segmentation.csv"
  return masks, newer if newer.exists() and not boxes.exists() else boxes


def find_mask(root: pathlib.Path, split: str, name: str) -> pathlib.Path:
  """Where a mask is; the first of its places if it is nowhere.

  Args:
    root: the data set's folder.
    split: train, validation or test.
    name: the mask's file name.
  """
  folders = (f"masks/{split}", f"{split}-masks", "masks", f"{split}-masks-{name[:1]}")
  places = [root / folder / name for folder in folders]
  return next((place for place in places if place.exists()), places[0])


def image_file(root: pathlib.Path, split: str, image: str) -> pathlib.Path:
  """Where an image belongs.

  Args:
    root: the data set's folder.
    split: train, validation or test.
    image: its ImageID.
  """
  return root / split / f"{image}.jpg"


class Download:
  """Fetches what a folder lacks: what is there is not requested, and no file is there in part.

  What the servers turn out not to have is noted in `unavailable.txt`, one path and reason a line,
  and is not requested again; without that file it is.
  """

  def __init__(self, root: pathlib.Path, *, enabled: bool):
    """Prepares; nothing is fetched yet.

    Args:
      root: the data set's folder; made if missing.
      enabled: whether anything is to be done at all.
    """
    self._root, self._enabled = root, enabled
    self._notes = root / "unavailable.txt"
    self._unavailable: dict[str, str] = {}
    self._failed: dict[str, str] = {}  # this time, but perhaps not the next
    if enabled:
      (root / "train").mkdir(parents=True, exist_ok=True)
    if enabled and self._notes.exists():
      lines = self._notes.read_text(encoding="utf-8").splitlines()
      self._unavailable = {path: why for path, _, why in (line.partition("\t") for line in lines)}

  def table(self, path: pathlib.Path) -> None:
    """Fetches an annotation file.

    Args:
      path: where it belongs.

    Raises:
      OSError: when it cannot be fetched; the message names the remedy.
    """
    if path.exists() or not self._enabled:
      return
    with self._explained():
      url, sha256 = ADDRESSES.tables[path.name]
      logging.info("Fetching %s.", url)
      # The list of classes may have no header; the last is the mark of UTF-8.
      begins = (b"/", b"LabelName", b"MaskPath", b"ImageID", b"\xef\xbb\xbf")
      fetch(url, path, sha256=sha256, begins=begins, progress=True)

  def objects(self, split: str, masks: Iterable[tuple[str, str]]) -> None:
    """Fetches masks and the images of those that there are.

    Of the zip files with masks those in the folder are used; what is fetched is not kept. A
    image that cannot be fetched from a server that responds is left out.

    Args:
      split: train, validation or test.
      masks: their file names and ImageIDs.

    Raises:
      OSError: when a server does not respond, a zip file cannot be fetched or the disk is full;
        the message names the remedy.
      ValueError: when a zip file in the folder is damaged.
    """
    if not self._enabled:
      return
    safe = [pair for pair in masks if all(re.fullmatch(r"[\w-][\w.-]*", name) for name in pair)]
    try:
      with self._explained():
        self._fetch_masks(split, {name for name, _ in safe})
        present = {image for name, image in safe if find_mask(self._root, split, name).exists()}
        self._fetch_images(split, present)
    finally:
      self._write_notes()

  def why(self, path: pathlib.Path) -> str:
    """Why a file is missing, as far as it is known.

    Args:
      path: below the folder.
    """
    key = str(path.relative_to(self._root))
    return self._unavailable.get(key) or self._failed.get(key, "")

  def _fetch_masks(self, split: str, names: set[str]) -> None:
    by_key: dict[str, dict[str, pathlib.Path]] = {}
    for name in sorted(names):
      place = find_mask(self._root, split, name)
      if not place.exists() and not self.why(place):
        by_key.setdefault(name[:1].lower(), {})[name] = place
    for key, targets in by_key.items():
      url = ADDRESSES.masks.format(split=split, key=key)
      content = f"{len(targets)} masks of it are missing"
      name = f"{split}-masks-{key}.zip"
      archive = Archive(name=name, url=url, sha256="", size=content, content="")
      for lacking in unpack_files(archive, self._root, targets):
        self._note(targets[lacking], f"{name} holds no {lacking}")

  def _fetch_images(self, split: str, images: set[str]) -> None:
    missing = [image for image in sorted(images) if self._is_wanted(split, image)]
    broken = threading.Event()

    def fetch_image(image: str) -> OSError | None:
      """Why there still is no such image, if so."""
      if broken.is_set():  # those behind would wait as long again
        return OSError(f"{split}/{image}.jpg is not requested any more")
      url = ADDRESSES.images.format(split=split, image=image)
      try:
        fetch(url, image_file(self._root, split, image), begins=(b"\xff\xd8",))
      except OSError as error:
        if isinstance(error, UnreachableError) or error.errno is not None:  # the disk's have one
          broken.set()
          raise
        return error
      return None

    if missing:
      logging.info("Fetching %d images of the split %s.", len(missing), split)
    errors = ordered_map(fetch_image, missing, workers=_WORKERS, ahead=4 * _WORKERS)
    bar = tqdm.tqdm(errors, desc=f"{split} images", total=len(missing), disable=not missing)
    for image, error in zip(missing, bar, strict=True):
      if error is not None:
        lasting = isinstance(error, AbsentError)
        self._note(image_file(self._root, split, image), str(error), lasting=lasting)

  def _is_wanted(self, split: str, image: str) -> bool:
    path = image_file(self._root, split, image)
    return not path.exists() and not self.why(path)

  def _note(self, path: pathlib.Path, reason: str, *, lasting: bool = True) -> None:
    logging.warning("%s", reason)
    reasons = self._unavailable if lasting else self._failed
    reasons[str(path.relative_to(self._root))] = " ".join(reason.split())

  def _write_notes(self) -> None:
    if self._unavailable:
      lines = [f"{path}\t{why}\n" for path, why in self._unavailable.items()]
      files.write_text(self._notes, "".join(lines))

  @contextlib.contextmanager
  def _explained(self) -> Iterator[None]:
    try:
      yield
    except OSError as error:
      message = f"OpenImages is not complete in {self._root}: {error}. {SOURCE}"
      raise OSError(message) from error
