"""PASCAL3D+ release 1.1: objects with keypoints, cameras and the CAD models that were aligned.

The published archives, with silhouettes that the user adds:
  Annotations/{CATEGORY}_{pascal,imagenet}/NAME.mat, Images/{CATEGORY}_{pascal,imagenet}/NAME.*
  CAD/CATEGORY.mat
  PASCAL/VOCdevkit/VOC2012/ImageSets/Main/CATEGORY_{train,val}.txt
  PASCAL/VOCdevkit/VOC2012/SegmentationObject/NAME.png   where VOC 2012 has segmented the image
  Masks/CATEGORY_{pascal,imagenet}/NAME_K.png            else the silhouette of object K, from 1,
  Masks/CATEGORY_{pascal,imagenet}/NAME.png              else of the image's only object
An object without silhouette, or with one that does not fill its annotated box, is left out.

Source: Xiang et al. 2014 (Beyond PASCAL); Kanazawa et al. 2018 (CMR) for the choice of objects.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.spatial.transform import Rotation

from umr_jax.data import pascal3d_files as files
from umr_jax.data.annotations import FROM_LEFT_BACK_UP, pixel_camera, read_rows, read_structs
from umr_jax.data.example import Box, Example, Meshes, box_iou, mask_box
from umr_jax.data.image_files import BadItemError, decode, read_image, read_mask
from umr_jax.data.records import Keypoints, Record, RecordBuilder, file_stamps, make_example

# Part of a prepared data set's fingerprint: raise it whenever what is stored would change.
VERSION = 1
CATEGORIES = (
  "aeroplane", "bicycle", "boat", "bottle", "bus", "car", "chair", "diningtable", "motorbike",
  "sofa", "train", "tvmonitor",
)  # fmt: skip
_FLAGS = ("difficult", "truncated", "occluded")  # of objects that are left out
_MIN_KEYPOINTS = 4  # visible ones that an object needs
_VIEWPOINT = ("azimuth", "elevation", "theta", "distance", "focal", "viewport", "px", "py")
# Least overlap of a mask's box with the annotated one: VOC's may be another object's, others bad.
_SAME_OBJECT, _GOOD_MASK = 0.5, 0.8
_UNDECIDED, _HALF_LINE = 255, 3.0  # VOC leaves a line of 5 pixels along every outline undecided


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Object:
  """One object of an image as its annotation describes it."""

  annotation: pathlib.Path
  number: int  # in the image, from 1
  box: Box
  keypoints: np.ndarray  # [N, 3] float32: x, y, visible
  model: int  # from 1
  viewpoint: dict[str, float] | None


def pascal3d_builder(
  root: pathlib.Path, *, category: str, margin: float, download: bool = False
) -> RecordBuilder:
  """Reads one category's annotation files and prepares to read the images.

  ImageNet's images and PASCAL's train list are for training, PASCAL's val list is for testing.
  Difficult, truncated or occluded objects and those with fewer than 4 visible keypoints are left
  out. Left and right in keypoints' names are as published: for some the viewer's.

  Args:
    root: the extracted PASCAL3D+_release1.1, or the folder that holds it.
    category: one of `CATEGORIES`.
    margin: what is kept around an object, as a share of its longer side, on every side.
    download: whether to unpack, and to fetch if need be, the archives whose contents are missing.

  Returns:
    A builder of examples, one for each object, with keypoints in pixels, (0.5, 0.5) the first's
    centre, a camera where the annotated distance is not 0, and a CAD model in object space.

  Raises:
    FileNotFoundError: when files are missing, with where they can be had.
    OSError: when an archive can neither be found nor fetched.
    ValueError: for an unknown category, a malformed CAD file or list, or a damaged archive.
  """
  if category not in CATEGORIES:
    raise ValueError(f"PASCAL3D+ has no category {category!r}, only {', '.join(CATEGORIES)}")
  root, lists = files.prepare(root, category, download=download), files.voc_lists(category)
  folders = files.image_folders(category)
  cad = f"CAD/{category}.mat"
  meshes, names = _read_models(root / cad, category)
  split_of = {row[0]: "train" for _, row in read_rows(root / lists["train"], 2)}
  split_of |= {row[0]: "test" for _, row in read_rows(root / lists["val"], 2)}
  paths = [path for folder in folders for path in (root / "Annotations" / folder).glob("*.mat")]
  skipped: list[tuple[str, str]] = []
  records, used = [], set()
  for name, item in _read_objects(sorted(paths), category, names, len(meshes)):
    if isinstance(item, str):
      skipped.append((name, item))
      continue
    from_imagenet = item.annotation.parent.name == folders[0]
    split = "train" if from_imagenet else split_of.get(item.annotation.stem, "")
    if not split:
      skipped.append((name, "its image is in neither of PASCAL's lists"))
      continue
    used.add(shape := f"{category}{item.model:02d}")
    read = functools.partial(_read_example, root, name, item, shape, meshes[shape][0])
    records.append(Record(name=name, split=split, read=read))
  stamps = [root / cad, *(root / path for path in lists.values()), *paths]
  stamps += files.list_images(root, folders)
  return RecordBuilder(
    f"pascal3d_{category}",
    records,
    settings={"version": VERSION, "category": category, "files": file_stamps(root, stamps)},
    margin=margin,
    keypoints=Keypoints(names, _flip(names)),
    meshes={shape: mesh for shape, mesh in meshes.items() if shape in used},
    skipped=skipped,
  )


def _read_models(path: pathlib.Path, category: str) -> tuple[Meshes, tuple[str, ...]]:
  """The CAD models in object space, and the names of their anchor points in the file's order."""
  meshes: Meshes = {}
  names: list[str] = []
  for number, model in enumerate(read_structs(path, category), start=1):
    try:
      vertices = np.atleast_2d(np.asarray(model.vertices, np.float64))
      faces = np.atleast_2d(np.asarray(model.faces, np.int64)) - 1
    except (AttributeError, TypeError, ValueError) as error:
      raise ValueError(f"{path}, model {number} has no vertices and faces ({error})") from error
    usable = vertices.shape[1] == faces.shape[1] == 3 and faces.size > 0 and faces.min() >= 0
    if not (usable and faces.max() < vertices.shape[0] and np.isfinite(vertices).all()):
      raise ValueError(f"{path}, model {number} has no finite [V, 3] vertices and faces of them")
    vertices = (vertices @ FROM_LEFT_BACK_UP.T).astype(np.float32)
    meshes[f"{category}{number:02d}"] = vertices, faces.astype(np.int32)
    names += (name for name in model._fieldnames if name not in ("vertices", "faces", "pnames"))
  return meshes, tuple(dict.fromkeys(names))


def _flip(names: Sequence[str]) -> tuple[int, ...]:
  """For each name the one with left and right swapped; itself where there is none."""
  swapped = {"left": "right", "right": "left"}
  partners = ["_".join(swapped.get(word, word) for word in name.split("_")) for name in names]
  return tuple(
    names.index(partner) if partner in names else index for index, partner in enumerate(partners)
  )


def _read_objects(
  paths: Sequence[pathlib.Path], category: str, names: Sequence[str], models: int
) -> Iterator[tuple[str, _Object | str]]:
  """The names of a category's objects in annotation files with these, or why they are of no use."""
  for path in paths:
    try:
      record = read_structs(path, "record")[0]
    except ValueError as error:
      yield path.stem, str(error)
      continue
    for number, entry in enumerate(np.atleast_1d(getattr(record, "objects", [])).flat, start=1):
      if getattr(entry, "class", None) != category:
        continue
      name = f"{path.stem}_{number}"
      try:
        yield name, _parse_object(path, number, entry, names, models)
      except BadItemError as error:
        yield name, str(error)


def _parse_object(
  path: pathlib.Path, number: int, entry: Any, names: Sequence[str], models: int
) -> _Object:
  if bad := [flag for flag in _FLAGS if any(_numbers(entry, flag))]:
    raise BadItemError(f"the object is {' and '.join(bad)}")
  keypoints = np.zeros((len(names), 3), np.float32)
  for index, name in enumerate(names):
    anchor = getattr(getattr(entry, "anchors", None), name, None)
    location = _numbers(anchor, "location")
    if _numbers(anchor, "status") == [1.0] and len(location) == 2 and np.isfinite(location).all():
      keypoints[index] = location[0] - 0.5, location[1] - 0.5, 1.0
  if (visible := int(keypoints[:, 2].sum())) < _MIN_KEYPOINTS:
    raise BadItemError(f"it has {visible} visible keypoints, expected at least {_MIN_KEYPOINTS}")
  box, model = _numbers(entry, "bbox"), _numbers(entry, "cad_index")
  if len(box) != 4 or not box[0] < box[2] or not box[1] < box[3]:
    raise BadItemError(f"the box is {box}, expected x1, y1, x2, y2")
  if len(model) != 1 or model[0] not in range(1, models + 1):
    raise BadItemError(f"cad_index is {model}, expected one from 1 to {models}")
  view = [_numbers(getattr(entry, "viewpoint", None), key) for key in _VIEWPOINT]
  known = all(len(numbers) == 1 and np.isfinite(numbers[0]) for numbers in view)
  return _Object(
    annotation=path,
    number=number,
    box=(box[0] - 1.0, box[1] - 1.0, box[2], box[3]),
    keypoints=keypoints,
    model=int(model[0]),
    viewpoint=dict(zip(_VIEWPOINT, np.ravel(view).tolist(), strict=True)) if known else None,
  )


def _numbers(struct: Any, field: str) -> list[float]:
  """A field's numbers as a flat list; empty where it is missing, empty or no numbers."""
  try:
    return np.asarray(getattr(struct, field, []), np.float64).ravel().tolist()
  except (TypeError, ValueError):
    return []


def _read_example(
  root: pathlib.Path, name: str, item: _Object, shape: str, vertices: np.ndarray
) -> Example:
  folder, stem = item.annotation.parent.name, item.annotation.stem
  suffix = ".JPEG" if folder.endswith("_imagenet") else ".jpg"
  image, _ = read_image(root / "Images" / folder / f"{stem}{suffix}")
  # ImageNet's names are none of VOC's.
  segmentation = root / files.VOC / "SegmentationObject" / f"{stem}.png"
  if segmentation.exists():
    mask, least = _read_segmentation(segmentation, item.number), _SAME_OBJECT
  else:
    mask, least = _read_given_mask(root / "Masks" / folder, name, stem), _GOOD_MASK
  found = mask_box(mask)
  if found is not None and (overlap := box_iou(found, item.box)) < least:
    raise BadItemError(
      f"the silhouette's box and the annotated one overlap by {overlap:.2f}, expected {least}"
    )
  camera = None
  if item.viewpoint is not None and (fit := fit_camera(item.viewpoint, vertices)) is not None:
    camera = pixel_camera(*fit, size=image.shape[:2])
  return make_example(name, image, mask, keypoints=item.keypoints, camera=camera, shape=shape)


def _read_given_mask(folder: pathlib.Path, name: str, stem: str) -> np.ndarray:
  for path in (folder / f"{name}.png", folder / f"{stem}.png"):
    if path.exists():
      return read_mask(path)
  raise BadItemError(f"it has no silhouette: none of VOC 2012, no Masks/{folder.name}/{name}.png")


def _read_segmentation(path: pathlib.Path, number: int) -> np.ndarray:
  """One object of a VOC label map, with its half of the undecided line along the outline."""

  def read() -> np.ndarray:
    with Image.open(path) as opened:
      return np.asarray(opened)

  labels = decode(path.name, read)
  if labels.ndim != 2 or (labels == _UNDECIDED).all():
    raise BadItemError(f"SegmentationObject/{path.name} is not a map of labels")
  distance, nearest = ndimage.distance_transform_edt(labels == _UNDECIDED, return_indices=True)
  return ((labels[tuple(nearest)] == number) & (distance <= _HALF_LINE)).astype(np.float32)


def fit_camera(
  viewpoint: dict[str, float], vertices: np.ndarray
) -> tuple[np.ndarray, float, np.ndarray] | None:
  """The weak perspective camera nearest to an annotated perspective one.

  The release's camera has y up and looks down its -z. At azimuth a, elevation e and distance d it
  has a point X (left, back, up) at Rx(e - 90) Rz(-a) X - (0, 0, d), and theta turns the image
  counter-clockwise. With y down and z into the scene, the rotation of X therefore is
  diag(1, -1, -1) Rz(theta) Rx(e - 90) Rz(-a), and d is added to the depth.

  Args:
    viewpoint: azimuth, elevation and theta in degrees, distance, focal, viewport (pixels for a
      focal of 1), and px and py in pixels that count from 1.
    vertices: [V, 3] of the CAD model in object space.

  Returns:
    The rotation [3, 3] from object space, and the scale and translation [2] in pixels, (0.5, 0.5)
    the first one's centre, that put the vertices nearest to their perspective images (least
    squares); None where there is no distance or the camera is inside the model.

  Source: `project_3d.m` of the release.
  """
  angles = viewpoint["theta"], viewpoint["elevation"] - 90.0, -viewpoint["azimuth"]
  turn = Rotation.from_euler("ZXZ", angles, degrees=True).as_matrix()
  rotation = np.diag([1.0, -1.0, -1.0]) @ turn @ FROM_LEFT_BACK_UP.T
  points = vertices.astype(np.float64) @ rotation.T
  depth = points[:, 2:] + viewpoint["distance"]
  zoom = viewpoint["focal"] * viewpoint["viewport"]
  if viewpoint["distance"] <= 0.0 or zoom <= 0.0 or depth.min() <= 0.0:
    return None
  pixels = zoom * points[:, :2] / depth + [viewpoint["px"] - 0.5, viewpoint["py"] - 0.5]
  middle, target = points[:, :2].mean(axis=0), pixels.mean(axis=0)
  centred = points[:, :2] - middle
  scale = float((centred * (pixels - target)).sum() / (centred**2).sum())
  return (rotation, scale, target - scale * middle) if scale > 0.0 else None
