"""A data set from a folder of photographs with silhouettes, and the user's annotations of them.

The layout of the folder, all but the first two lines optional:
  images/NAME.{jpg,jpeg,png,webp}   the photographs
  masks/NAME.png                    their silhouettes, unless the images have an alpha channel
  splits.json       {train: [NAME], test: [NAME]}
  keypoints.json    {names, flip, points: {NAME: [[x, y, visible]]}}, (0.5, 0.5) the first pixel
  cameras.json      {NAME: {rotation: 3x3 object to camera, scale, tx, ty}}; [-1, 1] spans the
                    square around the image's centre whose side is the image's longer side
  shapes.json       {NAME: SHAPE}, with meshes/SHAPE.npz {vertices, faces}
  parts/NAME.npz    probs [H, W, P + 1], background first, or labels parts [H, W]
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from absl import logging

from umr_jax.data import annotations
from umr_jax.data import image_files as files
from umr_jax.data.example import Contents, Example, Json, Meshes
from umr_jax.data.image_files import BadItemError
from umr_jax.data.records import check_size, crop_for_storage, file_stamps, make_example, reasons
from umr_jax.data.threads import ordered_map

# Part of a prepared data set's fingerprint: raise it whenever what is stored would change.
VERSION = 2

_ANNOTATIONS = ("splits.json", "keypoints.json", "cameras.json", "shapes.json")
# Names that a message lists.
_NAMED = 10


class FolderBuilder:
  """Builds a data set from a user's folder (`example.Builder`)."""

  def __init__(self, folder: pathlib.Path, *, test_fraction: float, split_seed: int, margin: float):
    """Lists the folder and reads its annotation files; images are read by `examples`.

    Args:
      folder: the folder.
      test_fraction: share of the images for testing, where there is no splits.json.
      split_seed: seed of that split.
      margin: what is kept around an object, as a share of its longer side, on every side.

    Raises:
      FileNotFoundError: when the folder or its images/ is missing.
      ValueError: when an annotation file is malformed.
    """
    self.name = folder.resolve().name
    self._folder = folder
    self._test_fraction, self._split_seed, self._margin = test_fraction, split_seed, margin
    self._skipped: list[tuple[str, str]] = []
    self._images = self._list("images", files.IMAGE_SUFFIXES, required=True)
    self._masks = self._list("masks", (".png",))
    self._parts = self._list("parts", (".npz",))
    self._mesh_files = self._list("meshes", (".npz",))
    self._skipped += [
      (name, f"masks/{path.name} has no partner in images/")
      for name, path in self._masks.items()
      if name not in self._images
    ]
    self._splits = annotations.read_splits(folder / "splits.json")
    self._keypoint_names, self._keypoint_flip, self._points = annotations.read_keypoint_file(
      folder / "keypoints.json"
    )
    self._cameras = annotations.read_json(folder / "cameras.json") or {}
    self._shapes = annotations.read_json(folder / "shapes.json") or {}
    self._note_unmatched()
    self._meshes: Meshes = {}
    self._channels = 0
    self._usable: list[str] = []

  def _note_unmatched(self) -> None:
    """Lists, a line for each source, what is annotated but no image of the folder."""
    sources: dict[str, Iterable[str]] = {
      "parts": self._parts,
      "keypoints.json": self._points,
      "cameras.json": self._cameras,
      "shapes.json": self._shapes,
    }
    for source, entries in sources.items():
      if unmatched := [name for name in entries if name not in self._images]:
        what = f"names what images/ does not hold: {_some(unmatched)}"
        self._skipped.append((source, what))

  def _list(
    self, kind: str, suffixes: tuple[str, ...], *, required: bool = False
  ) -> dict[str, pathlib.Path]:
    """The files of a sub-folder by name without suffix, sorted."""
    directory = self._folder / kind
    if not directory.is_dir():
      if not required:
        return {}
      found = "which does not exist"
      if self._folder.is_dir():
        found = f"which holds {sorted(p.name for p in self._folder.iterdir())[:10]}"
      raise FileNotFoundError(
        f"expected the photographs in {directory}, in the folder {self._folder} ({found}); "
        "data.folder must name a folder with images/NAME.jpg and masks/NAME.png"
      )
    return files.list_files(directory, suffixes, self._skipped)

  def settings(self) -> dict[str, Json]:
    """Everything that decides what is built: the settings, and every file's size and time."""
    paths = [self._folder / name for name in _ANNOTATIONS if (self._folder / name).exists()]
    for listed in (self._images, self._masks, self._parts, self._mesh_files):
      paths += listed.values()
    return {
      "source": "folder",
      "version": VERSION,
      "test_fraction": self._test_fraction,
      "split_seed": self._split_seed,
      "margin": self._margin,
      "files": file_stamps(self._folder, paths),
    }

  def examples(self) -> Iterator[Example]:
    """Reads the usable items, in the order of their names; the others go to the skipped list.

    Raises:
      ValueError: when nothing is usable.
    """
    self._usable = []
    self._read_meshes()
    maps = [path for name, path in self._parts.items() if name in self._images]
    self._channels = files.count_part_channels(maps)
    items = ordered_map(self._try_item, self._images)
    for name, (example, wrong) in zip(self._images, items, strict=True):
      self._skipped += [(name, reason) for reason in wrong]
      if example is not None:
        self._usable.append(name)
        yield example
    if not self._usable:
      raise ValueError(self._nothing("no image of it is usable"))
    lacking = [name for name in self._usable if name not in self._parts]
    if self._channels and lacking:
      self._skipped.append(("parts", f"used without part map: {_some(lacking)}"))

  def _nothing(self, what: str) -> str:
    why = reasons(self._skipped) or ": images/ holds no jpg, jpeg, png or webp file"
    return f"nothing to learn from in {self._folder}: {what}{why}"

  def contents(self) -> Contents:
    """The splits, the names, the meshes and what was skipped.

    Raises:
      ValueError: when no usable image is left for training.
    """
    position = {name: index for index, name in enumerate(self._usable)}
    if self._splits is None:
      splits = annotations.seeded_split(len(self._usable), self._test_fraction, self._split_seed)
    else:
      splits = {}
      for split, names in self._splits.items():
        splits[split] = [position[name] for name in names if name in position]
        self._skipped += [
          (name, f"{split} of splits.json names it, but images/ does not hold it")
          for name in names
          if name not in self._images
        ]
      unused = len(self._usable) - sum(len(indices) for indices in splits.values())
      if unused > 0:
        logging.info("%d images of %s are in neither split", unused, self._folder)
    if not splits["train"]:
      raise ValueError(self._nothing("no usable image is in the training split"))
    return Contents(
      splits=splits,
      part_names=tuple(f"part{index}" for index in range(1, self._channels)),
      keypoint_names=self._keypoint_names,
      keypoint_flip=self._keypoint_flip,
      meshes=self._meshes,
      skipped=list(self._skipped),
    )

  def _read_meshes(self) -> None:
    wanted = {str(shape) for name, shape in self._shapes.items() if name in self._images}
    for shape in sorted(wanted):
      if shape not in self._mesh_files:
        self._skipped.append((shape, f"shapes.json names it, but there is no meshes/{shape}.npz"))
        continue
      try:
        self._meshes[shape] = files.read_mesh(self._mesh_files[shape])
      except BadItemError as error:
        self._skipped.append((shape, str(error)))

  def _try_item(self, name: str) -> tuple[Example | None, list[str]]:
    """One item, or None, and the reasons why it or something that belongs to it is of no use."""
    wrong: list[str] = []
    try:
      return self._read_item(name, wrong), wrong
    except BadItemError as error:
      return None, [str(error)]

  def _read_item(self, name: str, wrong: list[str]) -> Example:
    image, alpha = files.read_image(self._images[name])
    if name in self._masks:
      mask = files.read_mask(self._masks[name])
    elif alpha is not None:
      mask = alpha
    else:
      raise BadItemError(
        f"no masks/{name}.png, and the image has no alpha channel that is not full"
      )
    shape = str(self._shapes[name]) if name in self._shapes else None
    example = make_example(
      name,
      image,
      mask,
      parts=_tried(wrong, lambda: self._read_parts(name, image)),
      keypoints=_tried(wrong, lambda: self._read_keypoints(name)),
      camera=_tried(wrong, lambda: self._read_camera(name)),
      shape=shape if shape in self._meshes else None,
    )
    if self._keypoint_names and example.keypoints is None:
      hidden = np.zeros((len(self._keypoint_names), 3), np.float32)
      example = dataclasses.replace(example, keypoints=hidden)
    return crop_for_storage(example, self._margin)

  def _read_parts(self, name: str, image: np.ndarray) -> np.ndarray | None:
    if self._channels == 0 or name not in self._parts:
      return None
    parts = files.read_parts(self._parts[name], channels=self._channels)
    check_size(parts, image, "the part map")
    return parts

  def _read_keypoints(self, name: str) -> np.ndarray | None:
    if name not in self._points:
      return None
    return annotations.parse_keypoints(self._points[name], count=len(self._keypoint_names))

  def _read_camera(self, name: str) -> np.ndarray | None:
    return annotations.parse_camera(self._cameras[name]) if name in self._cameras else None


def _tried(wrong: list[str], read: Callable[[], np.ndarray | None]) -> np.ndarray | None:
  """What belongs to an image that can be used without it; the reason, where it is bad."""
  try:
    return read()
  except BadItemError as error:
    wrong.append(str(error))
    return None


def _some(names: list[str]) -> str:
  """The first names of a list, and how many more there are."""
  more = len(names) - _NAMED
  return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
