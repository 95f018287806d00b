"""ImageNet's quadrupeds, with silhouettes from elsewhere: ImageNet has none.

The layout of the folder, with the synset n02391049 (zebra) for example; NAME is an image's
file name without its suffix:
  n02391049/NAME.JPEG             or below images/, train/ or ILSVRC/Data/CLS-LOC/train/
  masks/n02391049/NAME.png        the silhouette of the only object, or
  masks/n02391049/NAME_K.png      one for each object K of the image
  Annotation/n02391049/NAME.xml   or below ILSVRC/Annotations/CLS-LOC/train/; optional: ImageNet's
                                  boxes, to crop a mask that covers several objects
  quality/n02391049.json          optional: {NAME: "good" or another word}, or as CSM writes it
                                  {NAME: {"good": true, "0": true, "1": false}}, by object
"""

import functools
import pathlib
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence

import numpy as np

from umr_jax.data.annotations import read_json, seeded_split
from umr_jax.data.example import Box, Example, Json
from umr_jax.data.image_files import (
  IMAGE_SUFFIXES,
  BadItemError,
  list_files,
  read_image,
  read_mask,
)
from umr_jax.data.records import (
  Record,
  RecordBuilder,
  check_size,
  file_stamps,
  make_example,
  require_files,
)

# Part of a prepared data set's fingerprint: raise it whenever what is stored would change.
VERSION = 1

# The categories of "Canonical Surface Mapping via Geometric Cycle Consistency" (CSM) in ImageNet.
SYNSETS = {
  "bear": "n02131653",
  "cow": "n01887787",
  "horse": "n02381460",
  "sheep": "n10588074",
  "zebra": "n02391049",
}

_IMAGES = ("{}", "images/{}", "train/{}", "ILSVRC/Data/CLS-LOC/train/{}")
_BOXES = ("Annotation/{}", "ILSVRC/Annotations/CLS-LOC/train/{}")
_IMAGES_SOURCE = (
  "One of these folders is needed. ImageNet's images and boxes come from image-net.org, for "
  "which one registers; extract the synset's archive {0}.tar into a folder {0}"
)
_MASKS_SOURCE = (
  "ImageNet has no silhouettes: make them with an instance segmentation network (CSM took Mask "
  "R-CNN) and store them there as NAME.png, or NAME_0.png, NAME_1.png, ... for several objects"
)


def imagenet_builder(
  root: pathlib.Path, *, category: str, test_fraction: float, split_seed: int, margin: float
) -> RecordBuilder:
  """Lists one synset's images with silhouettes; they are read by the builder's `examples`.

  With masks by object each object is an example, named NAME_K. A single mask of an image with
  several boxes is cropped to the largest box. Objects of one image are in the same split.

  Args:
    root: the folder (layout: see the module).
    category: a name out of `SYNSETS`, or any synset, such as n02391049.
    test_fraction: share of the images for testing.
    split_seed: seed of that split.
    margin: what is kept around an object, as a share of its longer side, on every side.

  Raises:
    FileNotFoundError: when the images' or the masks' folder is missing.
    ValueError: for an unknown category, a malformed quality list, or when nothing is left.

  Source: Kulkarni, Gupta, Tulsiani 2019 (CSM) for the categories and the list of good images.
    Departs: the split is sampled by NumPy's default generator, not by CSM's.
  """
  synset = _find_synset(category)
  name, masks_folder = f"imagenet {synset}", f"masks/{synset}"
  images_folder = _first_folder(root, _IMAGES, synset)
  if not images_folder.is_dir():
    folders = [path.format(synset) for path in _IMAGES]
    require_files(root, folders, name=name, source=_IMAGES_SOURCE.format(synset))
  require_files(root, [masks_folder], name=name, source=_MASKS_SOURCE)
  xml_folder = _first_folder(root, _BOXES, synset)
  quality_file = root / "quality" / f"{synset}.json"
  quality = read_json(quality_file)

  skipped: list[tuple[str, str]] = []
  images = list_files(images_folder, IMAGE_SUFFIXES, skipped)
  masks = _list_masks(root / masks_folder, images, skipped)
  chosen = _choose(images, masks, quality, skipped)
  tests = set(seeded_split(len(chosen), test_fraction, split_seed)["test"])
  records, paths = [], [quality_file]
  for position, (stem, objects) in enumerate(chosen.items()):
    xml = xml_folder / f"{stem}.xml"
    paths += [images[stem], *objects.values(), xml]
    for key, mask in objects.items():
      # An object's own mask needs no box.
      boxes = xml if key == "" and xml.exists() else None
      label = f"{stem}_{key}" if key else stem
      read = functools.partial(_read_object, label, images[stem], mask, boxes, synset)
      split = "test" if position in tests else "train"
      records.append(Record(name=label, split=split, read=read))
  settings: dict[str, Json] = {
    "version": VERSION,
    "synset": synset,
    "test_fraction": test_fraction,
    "split_seed": split_seed,
    "files": file_stamps(root, paths),
  }
  return RecordBuilder(name, records, settings=settings, margin=margin, skipped=skipped)


def _find_synset(category: str) -> str:
  if re.fullmatch(r"n\d{8}", category.strip()):
    return category.strip()
  synset = SYNSETS.get(category.strip().lower())
  if synset is None:
    raise ValueError(
      f"ImageNet category {category!r} is not known: expected one of {', '.join(SYNSETS)}, or a "
      "synset such as n02391049"
    )
  return synset


def _first_folder(root: pathlib.Path, places: Sequence[str], synset: str) -> pathlib.Path:
  """The first place that is a folder; the first place if none is."""
  folders = [root / place.format(synset) for place in places]
  return next((folder for folder in folders if folder.is_dir()), folders[0])


def _list_masks(
  folder: pathlib.Path, images: dict[str, pathlib.Path], skipped: list[tuple[str, str]]
) -> dict[str, dict[str, pathlib.Path]]:
  """By image its masks by object's number; the number of a single mask is ""."""
  masks: dict[str, dict[str, pathlib.Path]] = {}
  for path in sorted(folder.glob("*.png")):
    if path.name.startswith("."):
      continue
    # ImageNet's own names end in a number too: an image's whole name comes first.
    stem, _, key = (path.stem, "", "") if path.stem in images else path.stem.rpartition("_")
    if stem not in images or (key and not key.isdecimal()):
      skipped.append((path.stem, f"masks/{folder.name}/{path.name} belongs to no image"))
    else:
      masks.setdefault(stem, {})[key] = path
  for stem, objects in masks.items():
    if len(objects) > 1 and "" in objects:
      del objects[""]
      skipped.append(
        (stem, f"masks/{folder.name}/{stem}.png is not used: there are masks by object")
      )
  by_number = {
    stem: dict(sorted(objects.items(), key=lambda item: int(item[0] or 0)))
    for stem, objects in masks.items()
  }
  return by_number


def _choose(
  images: dict[str, pathlib.Path],
  masks: dict[str, dict[str, pathlib.Path]],
  quality: dict[str, Json] | None,
  skipped: list[tuple[str, str]],
) -> dict[str, dict[str, pathlib.Path]]:
  """The images that have a mask and are good, each with its good objects' masks."""
  chosen = {}
  for stem, path in images.items():
    if stem not in masks:
      skipped.append((stem, f"there is no mask {stem}.png and no {stem}_K.png"))
      continue
    verdict: Json = "good"
    if quality is not None:
      verdict = quality.get(stem, quality.get(path.name, "not in the quality list"))
    kept = {key: mask for key, mask in masks[stem].items() if _is_good(verdict, key)}
    skipped += [
      (f"{stem}_{key}" if key else stem, f"not good by the quality list: {verdict}")
      for key in masks[stem]
      if key not in kept
    ]
    if kept:
      chosen[stem] = kept
  return chosen


def _is_good(verdict: Json, key: str) -> bool:
  """Whether an entry of the quality list is for the image or, by number, for its object."""
  if not isinstance(verdict, Mapping):
    return verdict == "good"
  objects = {number: bool(value) for number, value in verdict.items() if number != "good"}
  if key and objects:
    return objects.get(key, False)
  return bool(verdict.get("good", any(objects.values())))


def _read_object(
  name: str,
  image_file: pathlib.Path,
  mask_file: pathlib.Path,
  box_file: pathlib.Path | None,
  synset: str,
) -> Example:
  image, _ = read_image(image_file)
  mask = read_mask(mask_file)
  if box_file is not None:
    check_size(mask, image, "the mask")
    mask = _cut_to_largest(mask, _read_boxes(box_file, synset, image.shape))
  return make_example(name, image, mask)


def _read_boxes(path: pathlib.Path, synset: str, shape: Sequence[int]) -> list[Box]:
  """The boxes (x0, y0, x1, y1) of the synset's objects, in pixels to the outer edges.

  Raises:
    BadItemError: when the file is malformed or was made for an image of another size.
  """
  try:
    tree = ElementTree.parse(path).getroot()
    size = [int(tree.findtext(f"size/{side}") or 0) for side in ("height", "width")]
    boxes = []
    for item in tree.iter("object"):
      # Other programs write the category's name, but another synset is another animal.
      label = (item.findtext("name") or synset).strip()
      if re.fullmatch(r"n\d{8}", label) and label != synset:
        continue
      x0, y0, x1, y1 = (
        float(item.findtext(f"bndbox/{side}") or "nan") for side in ("xmin", "ymin", "xmax", "ymax")
      )
      if not (x0 <= x1 and y0 <= y1):  # false for NaN as well
        raise ValueError(f"a box from ({x0}, {y0}) to ({x1}, {y1})")
      # PASCAL's corners are numbers of pixels, counted from 1, and both are inside.
      boxes.append((x0 - 1.0, y0 - 1.0, x1, y1))
  except (OSError, ElementTree.ParseError, ValueError) as error:
    raise BadItemError(f"its boxes, {path.name}, cannot be read ({error})") from error
  if all(size) and size != list(shape[:2]):
    raise BadItemError(
      f"its boxes, {path.name}, are of an image of {size[1]} x {size[0]} pixels, the image "
      f"(upright by its EXIF) is {shape[1]} x {shape[0]}"
    )
  return boxes


def _cut_to_largest(mask: np.ndarray, boxes: list[Box]) -> np.ndarray:
  """The mask with nothing outside the largest box; as it is where there are fewer than two."""
  if len(boxes) < 2:
    return mask
  x0, y0, x1, y1 = max(boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
  rows, columns = (np.arange(side) + 0.5 for side in mask.shape)
  inside = ((rows > y0) & (rows < y1))[:, None] & ((columns > x0) & (columns < x1))[None]
  return np.where(inside, mask, np.float32(0.0))
