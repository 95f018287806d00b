"""Caltech-UCSD Birds-200-2011: images, silhouettes, keypoints and the official split.

The published archives, extracted beside or into one another:
  CUB_200_2011/images.txt, train_test_split.txt, parts/part_locs.txt, images/
  segmentations/CLASS/NAME.png      grey: how many of the annotators saw the bird there
In place of the text files and the segmentations, CMR's folder cachedir/cub may be used:
data/{train,test}_cub_cleaned.mat and, with cameras by structure from motion,
sfm/anno_{train,test}.mat. Its validation images are left out.

Source: Wah et al. 2011, Caltech-UCSD Birds-200-2011; Kanazawa et al. 2018 (CMR).
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from umr_jax.data.annotations import FROM_LEFT_BACK_UP, pixel_camera, read_rows, read_structs
from umr_jax.data.download import Archive, unpack
from umr_jax.data.example import Example, Json
from umr_jax.data.image_files import BadItemError, read_image, read_mask
from umr_jax.data.records import (
  Keypoints,
  Record,
  RecordBuilder,
  file_stamps,
  make_example,
  require_files,
)

# Part of a prepared data set's fingerprint: raise it whenever what is stored would change.
VERSION = 1

KEYPOINT_NAMES = (
  "Back", "Beak", "Belly", "Breast", "Crown", "FHead", "LEye", "LLeg", "LWing", "Nape", "REye",
  "RLeg", "RWing", "Tail", "Throat",
)  # fmt: skip
KEYPOINT_FLIP = (0, 1, 2, 3, 4, 5, 10, 11, 12, 9, 6, 7, 8, 13, 14)

# As published in 2022; sizes and checksums are those of tensorflow-datasets' `caltech_birds2011`.
_ARCHIVES = (
  Archive(
    name="CUB_200_2011.tgz",
    url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",
    sha256="0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
    size="1.15 GB",
    content="CUB_200_2011",
  ),
  Archive(
    name="segmentations.tgz",
    url="https://data.caltech.edu/records/w9d68-gec53/files/segmentations.tgz?download=1",
    sha256="dc77f6cffea0cbe2e41d4201115c8f29a6320ecb04fffd2444f51b8066e4b84f",
    size="39 MB",
    content="segmentations",
  ),
)

_TABLES = ("images.txt", "train_test_split.txt", "parts/part_locs.txt")
_SOURCE = (
  "Extract CUB_200_2011.tgz from https://www.vision.caltech.edu/datasets/cub_200_2011/ there, and "
  "segmentations.tgz from the same page into CUB_200_2011 or beside it; or set data.download, with "
  "both archives beside that folder, or with neither: then they are fetched."
)
_CLEANED_SOURCE = (
  "It is the folder cachedir/cub of https://github.com/akanazawa/cmr, with its data/."
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Bird:
  """One image as the annotation files describe it."""

  split: str
  image: pathlib.Path
  mask: Callable[[], np.ndarray]  # [H, W] float32, 0 or 1
  keypoints: np.ndarray  # [15, 3] float32: x, y, visible
  camera: np.ndarray | None = None

  def read(self) -> Example:
    image, _ = read_image(self.image)
    return make_example(
      self.image.stem, image, self.mask(), keypoints=self.keypoints, camera=self.camera
    )


def cub_builder(
  root: pathlib.Path,
  *,
  annotations: pathlib.Path | None,
  min_keypoints_train: int,
  min_keypoints_test: int,
  margin: float,
  download: bool = False,
) -> RecordBuilder:
  """Reads the annotation files of CUB-200-2011, or CMR's, and prepares to read the images.

  Args:
    root: the extracted CUB_200_2011, or the folder that holds it.
    annotations: CMR's cachedir/cub, or None for the published split, keypoints and segmentations.
    min_keypoints_train: training images with fewer visible keypoints are left out; CMR takes 6.
    min_keypoints_test: the same for test images; CMR takes 7.
    margin: what is kept around a bird, as a share of its longer side, on every side.
    download: whether to unpack, and to fetch if need be, the archives whose contents are missing.

  Returns:
    A builder of images with keypoints, [15, 3] in pixels with (0.5, 0.5) the centre of the first;
    the annotations count from 1. With CMR's cameras, these are for shapes in object space.

  Raises:
    FileNotFoundError: when files are missing, with where they can be had.
    ValueError: when an annotation file is malformed, with its line or entry, or nothing is left.

  Source: Kanazawa et al. 2018 (CMR) for the least numbers of keypoints. Departs: CMR subtracts the
    1 that its pixels count from for keypoints but not for cameras; here it is for both.
  """
  if download:
    _unpack_missing(root, annotations)
  if not (root / "images").is_dir() and (root / "CUB_200_2011").is_dir():
    root = root / "CUB_200_2011"
  skipped: list[tuple[str, str]] = []
  birds, stamps = (
    _cleaned(root, annotations, skipped) if annotations is not None else _published(root)
  )
  least = {"train": min_keypoints_train, "test": min_keypoints_test}
  records = []
  for bird in birds:
    name, visible, needed = bird.image.stem, int(bird.keypoints[:, 2].sum()), least[bird.split]
    if visible >= needed:
      records.append(Record(name=name, split=bird.split, read=bird.read))
    else:
      skipped.append((name, f"{visible} visible keypoints, expected at least {needed}"))
  stamps += file_stamps(root, [bird.image for bird in birds])
  return RecordBuilder(
    "cub",
    records,
    settings={"version": VERSION, "min_keypoints": least, "files": stamps},
    margin=margin,
    keypoints=Keypoints(KEYPOINT_NAMES, KEYPOINT_FLIP),
    skipped=skipped,
  )


def _unpack_missing(root: pathlib.Path, annotations: pathlib.Path | None) -> None:
  """Makes the folders of the archives beside one another, unless they are there.

  Raises:
    OSError: when an archive can neither be found nor fetched; the message names the remedy.
    ValueError: when one is damaged.
  """
  parent = root.parent if root.name == "CUB_200_2011" else root
  images, segmentations = _ARCHIVES
  try:
    if not any((folder / "images").is_dir() for folder in (root, parent / images.content)):
      unpack(images, parent)
    places = (parent, root, root.parent, parent / images.content)
    if annotations is None and not any((p / segmentations.content).is_dir() for p in places):
      unpack(segmentations, parent)
  except OSError as error:
    raise OSError(f"CUB-200-2011 is not complete in {root}: {error}. {_SOURCE}") from error


def _published(root: pathlib.Path) -> tuple[list[_Bird], list[Json]]:
  """The images of the text files, and the stamps of these and of the segmentations."""
  require_files(root, [*_TABLES, "images"], name="CUB-200-2011", source=_SOURCE)
  segmentations = root / "segmentations"
  if not segmentations.is_dir() and (root.parent / "segmentations").is_dir():
    segmentations = root.parent / "segmentations"
  require_files(segmentations.parent, ["segmentations"], name="CUB-200-2011", source=_SOURCE)
  paths = {key: path for _, (key, path) in read_rows(root / "images.txt", 2)}
  is_train = {}
  for where, (key, flag) in read_rows(root / "train_test_split.txt", 2):
    if flag not in ("0", "1"):
      raise ValueError(f"{where}: the second column must be 1 (training) or 0, found {flag!r}")
    is_train[key] = flag == "1"
  if lacking := [key for key in paths if key not in is_train]:
    raise ValueError(f"{root / 'train_test_split.txt'} lacks the images {lacking[:5]}")
  keypoints = _read_part_locations(root, paths)
  masks = {key: (segmentations / path).with_suffix(".png") for key, path in paths.items()}
  birds = [
    _Bird(
      split="train" if is_train[key] else "test",
      image=root / "images" / path,
      mask=functools.partial(_read_agreed, masks[key]),
      keypoints=keypoints[key],
    )
    for key, path in paths.items()
  ]
  stamps = file_stamps(root, [root / table for table in _TABLES])
  return birds, stamps + file_stamps(segmentations, masks.values())


def _read_agreed(path: pathlib.Path) -> np.ndarray:
  """What at least half of the annotators marked."""
  return (read_mask(path) >= 0.5).astype(np.float32)


def _read_part_locations(root: pathlib.Path, keys: Iterable[str]) -> dict[str, np.ndarray]:
  """The keypoints [15, 3] of every image by its key."""
  keypoints = {key: np.zeros((len(KEYPOINT_NAMES), 3), np.float32) for key in keys}
  for where, (key, part, *values) in read_rows(root / "parts" / "part_locs.txt", 5):
    try:
      index, (x, y, visible) = int(part) - 1, map(float, values)
    except ValueError as error:
      raise ValueError(f"{where}: the columns are not numbers ({error})") from error
    if not 0 <= index < len(KEYPOINT_NAMES) or not np.isfinite([x, y]).all():
      raise ValueError(f"{where}: expected a part from 1 to 15 at a finite position")
    if key not in keypoints:
      raise ValueError(f"{where}: images.txt has no image {key}")
    if visible > 0.5:
      keypoints[key][index] = x - 0.5, y - 0.5, 1.0
  return keypoints


def _cleaned(
  root: pathlib.Path, annotations: pathlib.Path, skipped: list[tuple[str, str]]
) -> tuple[list[_Bird], list[Json]]:
  """The images of CMR's files, and these files' stamps; notes cameras that are none."""
  require_files(root, ["images"], name="CUB-200-2011", source=_SOURCE)
  names = [f"data/{split}_cub_cleaned.mat" for split in ("train", "test")]
  require_files(annotations, names, name="CMR's annotation of CUB-200-2011", source=_CLEANED_SOURCE)
  birds: list[_Bird] = []
  files: list[pathlib.Path] = []
  for split in ("train", "test"):
    path = annotations / "data" / f"{split}_cub_cleaned.mat"
    cameras = annotations / "sfm" / f"anno_{split}.mat"
    files += [path, cameras]
    entries = read_structs(path, "images")
    motions = read_structs(cameras, "sfm_anno") if cameras.exists() else [None] * len(entries)
    if len(motions) != len(entries):
      raise ValueError(f"{cameras} has {len(motions)} cameras for {len(entries)} images")
    for number, (entry, motion) in enumerate(zip(entries, motions, strict=True), start=1):
      try:
        bird, reason = _cleaned_bird(root, split, entry, motion)
      except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}, entry {number}: {error}") from error
      birds.append(bird)
      skipped += [(bird.image.stem, reason)] if reason else []
  return birds, file_stamps(annotations, files)


def _cleaned_bird(root: pathlib.Path, split: str, entry: Any, motion: Any) -> tuple[_Bird, str]:
  """One entry of CMR's files, and what is wrong with its camera."""
  parts = np.asarray(entry.parts, np.float64)
  mask = np.asarray(entry.mask)
  if parts.shape != (3, len(KEYPOINT_NAMES)) or mask.ndim != 2:
    raise ValueError(f"parts is {parts.shape} and mask {mask.shape}, expected (3, 15) and (H, W)")
  visible = parts[2] > 0.5
  keypoints = np.where(visible, np.stack([parts[0] - 0.5, parts[1] - 0.5, visible]), 0.0).T
  if not np.isfinite(keypoints).all():
    raise ValueError("a visible keypoint has no finite position")
  camera, reason = None, ""
  try:
    # pixel = scale rot[:2] X + trans for X left, back, up, and pixels that count from 1.
    if motion is not None:
      rotation = np.asarray(motion.rot, np.float64).reshape(3, 3) @ FROM_LEFT_BACK_UP.T
      translation = np.asarray(motion.trans, np.float64).reshape(2) - 0.5
      camera = pixel_camera(rotation, float(motion.scale), translation, size=mask.shape)
  except BadItemError as error:
    reason = f"used without its camera: {error}"
  # All masks of the training set together take a gigabyte as bytes.
  packed, shape = np.packbits(mask > 0), mask.shape

  def unpack() -> np.ndarray:
    return np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape).astype(np.float32)

  bird = _Bird(
    split=split,
    image=root / "images" / str(entry.rel_path),
    mask=unpack,
    keypoints=keypoints.astype(np.float32),
    camera=camera,
  )
  return bird, reason
