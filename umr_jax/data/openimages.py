"""One class of OpenImages (V5 to V7) with its instance masks.

The layout of the folder, with the files' own names; SPLIT is train, validation or test, and of the
last two either may be missing:
  class-descriptions-boxable.csv      or oidv7-class-descriptions-boxable.csv
  SPLIT-annotations-bbox.csv          of train also oidv6-train-annotations-bbox.csv
  SPLIT-annotations-object-segmentation.csv
  SPLIT/IMAGEID.jpg
  masks/SPLIT/MASKPATH                or below SPLIT-masks/, masks/, or SPLIT-masks-X/, as the
                                      archive is named whose masks' names begin with X
What is missing of it can be fetched (`openimages_files`).
"""

import csv
import difflib
import functools
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging
from PIL import Image

from umr_jax.data.example import Box, Example, Json, box_iou
from umr_jax.data.image_files import BadItemError, read_image, read_mask
from umr_jax.data.openimages_files import (
  SOURCE,
  Download,
  annotation_files,
  class_file,
  find_mask,
  image_file,
)
from umr_jax.data.records import Record, RecordBuilder, file_stamps, make_example, require_files

# Part of a prepared data set's fingerprint: raise it whenever what is stored would change.
VERSION = 1

_SPLITS = {"train": "train", "validation": "test", "test": "test"}
_FLAGS = ("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside")
_BOX = ("XMin", "XMax", "YMin", "YMax")
_MASK_COLUMNS = ("MaskPath", "ImageID", "BoxID", *(f"Box{side}" for side in _BOX))
# The two files round the same box differently.
_SAME_BOX, _SAME_BOX_IOU = 1e-3, 0.9
# A mask has another resolution than its image, but not another shape, up to whole pixels.
_SAME_SHAPE = 0.05


class _Mask(NamedTuple):
  path: str
  image: str
  box_id: str
  box: Box  # here in shares of the image's sides


class _Annotated(NamedTuple):
  box: Box
  flags: list[str]  # those that are set


def openimages_builder(
  root: pathlib.Path, *, category: str, margin: float, download: bool = False
) -> RecordBuilder:
  """Lists the masks of one class; images are read by the builder's `examples`.

  Every mask is an example, named IMAGEID_BOXID. Objects that are occluded, truncated, a group, a
  depiction, or viewed from inside are left out. The split train is for training,
  validation and test for testing.

  Args:
    root: the folder (layout: see the module).
    category: the class by its display name, such as Penguin, in any case, or by its MID.
    margin: what is kept around an object, as a share of its longer side, on every side.
    download: whether to fetch what the folder lacks: annotation files, and masks and images of
      the objects that are not left out.

  Raises:
    OSError: when something cannot be fetched, other than single masks and images.
    FileNotFoundError: when a file or folder that the training split needs is missing, or one of
      another split's two annotation files.
    ValueError: for an unknown class, a damaged annotation file, or when nothing is left.

  Source: Kuznetsova et al. 2020 and Benenson et al. 2019 for the files; Li et al. 2020 name
    OpenImages, but no rule for choosing its images: leaving out flagged objects is ours.
  """
  fetched = Download(root, enabled=download)
  classes, name = class_file(root), "openimages"
  fetched.table(classes)
  require_files(root, [classes.name, "train"], name=name, source=SOURCE)
  mid, label = _find_class(classes, category)
  records: list[Record] = []
  skipped: list[tuple[str, str]] = []
  paths = [classes]
  for split in _SPLITS:
    mask_file, box_file = tables = annotation_files(root, split)
    for table in tables:
      fetched.table(table)
    if split != "train" and not mask_file.exists() and not box_file.exists():
      logging.info("%s has no annotation files of the split %s", root, split)
      continue
    require_files(root, [mask_file.name, box_file.name], name=name, source=SOURCE)
    paths += tables
    kept = _kept_masks(mask_file, box_file, mid, skipped)
    fetched.objects(split, [(mask.path, mask.image) for mask in kept])
    for mask in kept:
      image, stored = image_file(root, split, mask.image), find_mask(root, split, mask.path)
      paths += [image, stored]
      item = f"{mask.image}_{mask.box_id}"
      if absent := [path for path in (stored, image) if not path.exists()]:
        why = fetched.why(absent[0])
        skipped.append((item, f"there is no {absent[0].relative_to(root)}" + (why and f": {why}")))
        continue
      read = functools.partial(_read_object, item, image, stored)
      records.append(Record(name=item, split=_SPLITS[split], read=read))
  settings: dict[str, Json] = {
    "version": VERSION,
    "class": mid,
    "files": file_stamps(root, set(paths)),
  }
  return RecordBuilder(
    f"{name} {label}", records, settings=settings, margin=margin, skipped=skipped
  )


def _find_class(path: pathlib.Path, category: str) -> tuple[str, str]:
  """MID and display name of a class.

  Raises:
    ValueError: when there is none, with the names that are close.
  """
  classes = {}
  for _, row in _csv_rows(path):
    # A MID begins with a slash; newer files have a header.
    if len(row) >= 2 and row[0].startswith("/"):
      classes[row[0]] = row[1]
  wanted = category.strip()
  if wanted in classes:
    return wanted, classes[wanted]
  by_name = {label.lower(): mid for mid, label in classes.items()}
  if (mid := by_name.get(wanted.lower())) is not None:
    return mid, classes[mid]
  close = [classes[by_name[key]] for key in difflib.get_close_matches(wanted.lower(), by_name, n=5)]
  hint = f"close to it are {', '.join(close)}" if close else "none is close to it"
  raise ValueError(f"{category!r} is none of the {len(classes)} classes in {path}: {hint}")


def _csv_rows(path: pathlib.Path) -> Iterator[tuple[int, list[str]]]:
  """The rows of a file that need not fit into memory, with their line's number."""
  try:
    with path.open(newline="", encoding="utf-8-sig") as file:
      reader = csv.reader(file)
      for row in reader:
        if row:
          yield reader.line_num, row
  except (csv.Error, UnicodeDecodeError) as error:
    raise ValueError(f"{path} is not readable CSV: {error}") from error


def _class_rows(
  path: pathlib.Path, mid: str, columns: Sequence[str]
) -> Iterator[tuple[int, list[str]]]:
  """The line's number and the named columns of every row of one class.

  Raises:
    ValueError: when a column is missing, or a row has not as many values as the header.
  """
  rows = _csv_rows(path)
  _, header = next(rows, (1, []))
  if missing := [name for name in ("LabelName", *columns) if name not in header]:
    raise ValueError(f"{path} has no column {', '.join(missing)}: its header is {header}")
  label, places = header.index("LabelName"), [header.index(name) for name in columns]
  for line, row in rows:
    if len(row) != len(header):
      raise ValueError(
        f"{path}, line {line}: {len(row)} values, expected {len(header)}; the file may be cut off: "
        "fetch it again"
      )
    if row[label] == mid:
      yield line, [row[place] for place in places]


def _kept_masks(
  mask_file: pathlib.Path, box_file: pathlib.Path, mid: str, skipped: list[tuple[str, str]]
) -> list[_Mask]:
  """The masks of one class whose boxes have no flag."""
  masks = []
  for line, (path, image, box_id, *corners) in _class_rows(mask_file, mid, _MASK_COLUMNS):
    if (box := _parse_box(corners)) is None:
      where = f"{mask_file.name}, line {line}"
      skipped.append((f"{image}_{box_id}", f"{where}: {corners} is not a box"))
    else:
      masks.append(_Mask(path, image, box_id, box))
  wanted = {mask.image for mask in masks}
  boxes: dict[str, list[_Annotated]] = {}
  for line, (image, *values) in _class_rows(box_file, mid, ("ImageID", *_BOX, *_FLAGS)):
    if image not in wanted:
      continue
    corners, flags = values[: len(_BOX)], values[len(_BOX) :]
    if (box := _parse_box(corners)) is None:
      skipped.append((image, f"{box_file.name}, line {line}: {corners} is not a box"))
    else:
      # -1 is unknown.
      raised = [name for name, flag in zip(_FLAGS, flags, strict=True) if flag.strip() == "1"]
      boxes.setdefault(image, []).append(_Annotated(box, raised))
  kept = []
  for mask in masks:
    match = _match(mask.box, boxes.get(mask.image, []))
    if match is None:
      reason = f"no box of {box_file.name} fits"
    elif match.flags:
      reason = f"its box is marked {', '.join(match.flags)}"
    else:
      kept.append(mask)
      continue
    skipped.append((f"{mask.image}_{mask.box_id}", reason))
  return kept


def _parse_box(corners: Sequence[str]) -> Box | None:
  try:
    x0, x1, y0, y1 = (float(value) for value in corners)
  except ValueError:
    return None
  return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None  # neither holds for NaN


def _match(box: Box, candidates: Sequence[_Annotated]) -> _Annotated | None:
  """The candidate with the same box but for rounding."""
  if not candidates:
    return None

  def gap(other: _Annotated) -> float:
    return max(abs(a - b) for a, b in zip(box, other.box, strict=True))

  nearest = min(candidates, key=gap)
  if gap(nearest) <= _SAME_BOX:
    return nearest
  best = max(candidates, key=lambda other: box_iou(box, other.box))
  return best if box_iou(box, best.box) > _SAME_BOX_IOU else None


def _read_object(name: str, image_file: pathlib.Path, mask_file: pathlib.Path) -> Example:
  image, _ = read_image(image_file)
  return make_example(name, image, _resize(read_mask(mask_file), image.shape[0], image.shape[1]))


def _resize(mask: np.ndarray, height: int, width: int) -> np.ndarray:
  """A mask at its image's size, by nearest neighbours.

  Raises:
    BadItemError: when its shape is another, as where only one of the two was turned upright.
  """
  if mask.shape == (height, width):
    return mask
  rows, columns = mask.shape
  if abs(math.log((columns / rows) / (width / height))) > _SAME_SHAPE:
    raise BadItemError(
      f"the mask is {columns} x {rows} pixels, of another shape than the image's {width} x {height}"
    )
  return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
