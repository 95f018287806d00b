"""Annotation files: JSON of a user's folder, tables of text, MATLAB's structs, pixel cameras."""

import json
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
from scipy import io as scipy_io
from scipy.io.matlab import mat_struct
from scipy.spatial.transform import Rotation

from umr_jax.data.example import Json, frame_square
from umr_jax.data.image_files import IMAGE_SUFFIXES, BadItemError

# Takes points of a frame that is left, back, up, the one of CMR's shapes and of PASCAL3D+'s models,
# to object space, which is front, left, up: a quarter turn about the vertical.
FROM_LEFT_BACK_UP = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])

# How far the singular values of a camera's 3x3 matrix may be from 1.
_NEARLY_ORTHONORMAL = 1e-2


def read_json(path: pathlib.Path) -> dict[str, Json] | None:
  """A JSON object, or None where there is no such file.

  Raises:
    ValueError: when the file is not a JSON object.
  """
  if not path.exists():
    return None
  try:
    value = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
    raise ValueError(f"{path} is not readable JSON: {error}") from error
  if not isinstance(value, dict):
    raise ValueError(f"{path} must hold a JSON object, found a {type(value).__name__}")
  return value


def parse_keypoints(points: Json, *, count: int) -> np.ndarray:
  """The keypoints of one image in keypoints.json.

  Args:
    points: rows of [x, y, visible]; hidden ones may be null.
    count: how many there must be.

  Returns:
    [count, 3] float32.

  Raises:
    BadItemError: when they are not `count` rows of numbers.
  """
  try:
    rows = np.array(points, dtype=np.float32)  # None becomes NaN
  except (TypeError, ValueError) as error:
    raise BadItemError(f"keypoints.json holds no rows of [x, y, visible] ({error})") from error
  if rows.shape != (count, 3):
    raise BadItemError(f"keypoints.json has {rows.shape}, expected {count} of [x, y, visible]")
  rows[:, 2] = np.nan_to_num(rows[:, 2]) > 0.5
  hidden = rows[:, 2] == 0.0
  rows[hidden] = np.nan_to_num(rows[hidden], posinf=0.0, neginf=0.0)
  if not np.isfinite(rows).all():
    raise BadItemError("keypoints.json: a visible keypoint has no finite position")
  return rows


def parse_camera(entry: Json) -> np.ndarray:
  """A camera of cameras.json as [7]: scale, translation, quaternion (w, x, y, z).

  Raises:
    BadItemError: when a value is missing or not finite, or the rotation is none.
  """
  if not isinstance(entry, Mapping):
    raise BadItemError("cameras.json must hold an object with rotation, scale, tx and ty")
  try:
    rotation = np.array(entry["rotation"], dtype=np.float64).reshape(3, 3)
    values = np.array([entry[key] for key in ("scale", "tx", "ty")], dtype=np.float64)
  except (KeyError, TypeError, ValueError) as error:
    raise BadItemError(f"cameras.json needs rotation 3x3, scale, tx, ty ({error!r})") from error
  finite = np.isfinite(rotation).all() and np.isfinite(values).all()
  if not finite or values[0] <= 0.0:
    raise BadItemError("cameras.json: values must be finite and the scale positive")
  gap = np.abs(rotation @ rotation.T - np.eye(3)).max()
  if gap > 1e-3 or np.linalg.det(rotation) < 0.0:
    raise BadItemError("cameras.json: the matrix is not a rotation (orthonormal, determinant 1)")
  x, y, z, w = Rotation.from_matrix(rotation).as_quat(canonical=True)
  return np.array([*values, w, x, y, z], np.float32)


def seeded_split(count: int, test_fraction: float, seed: int) -> dict[str, list[int]]:
  """A random split that leaves at least one image to each side, where there are two.

  Args:
    count: of the images.
    test_fraction: share of them for testing.
    seed: of the permutation.

  Returns:
    The positions of the training and of the test images, sorted.

  Raises:
    ValueError: for a fraction outside [0, 1).
  """
  if not 0.0 <= test_fraction < 1.0:
    raise ValueError(f"data.test_fraction must be in [0, 1), got {test_fraction}")
  tests = min(round(count * test_fraction), count - 1)
  if test_fraction > 0.0 and count >= 2:
    tests = max(tests, 1)
  order = np.random.default_rng(seed).permutation(count).tolist()
  return {"train": sorted(order[tests:]), "test": sorted(order[:tests])}


def read_splits(path: pathlib.Path) -> dict[str, list[str]] | None:
  """The names of both splits in a splits.json, or None where there is no such file.

  Raises:
    ValueError: when they are no lists of names, or a name is in both.
  """
  if (value := read_json(path)) is None:
    return None
  splits = {}
  for split in ("train", "test"):
    names = value.get(split, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
      raise ValueError(f"{path}: {split!r} must be a list of image names")
    # NAME.jpg is understood as NAME.
    bare = [
      name[: -len(pathlib.Path(name).suffix)] if name.lower().endswith(IMAGE_SUFFIXES) else name
      for name in names
    ]
    splits[split] = list(dict.fromkeys(bare))
  if both := sorted(set(splits["train"]) & set(splits["test"])):
    raise ValueError(f"{path} names images in train and in test at once: {both[:5]}")
  return splits


def read_keypoint_file(
  path: pathlib.Path,
) -> tuple[tuple[str, ...], tuple[int, ...], dict[str, Json]]:
  """Names, flip and points of a keypoints.json; empty where there is no such file.

  Raises:
    ValueError: when one is missing, or the flip is no permutation that undoes itself.
  """
  if (value := read_json(path)) is None:
    return (), (), {}
  names, flip, points = (value.get(key) for key in ("names", "flip", "points"))
  if not isinstance(names, list) or not names or not isinstance(points, dict):
    raise ValueError(f"{path} must hold names (a list), flip (a list) and points (an object)")
  flip = flip if isinstance(flip, list) else []
  if not all(type(index) is int for index in flip) or sorted(flip) != list(range(len(names))):
    raise ValueError(
      f"{path}: flip must be a permutation of 0 to {len(names) - 1} that swaps left and right, "
      f"found {flip}"
    )
  if any(flip[flip[index]] != index for index in range(len(names))):
    raise ValueError(f"{path}: flip must undo itself when applied twice, found {flip}")
  return tuple(str(name) for name in names), tuple(flip), points


def read_rows(path: pathlib.Path, columns: int) -> Iterator[tuple[str, list[str]]]:
  """The filled lines of a text file, as (file and line for messages, columns).

  Args:
    path: of the file.
    columns: how many every line must have, separated by blanks.

  Raises:
    ValueError: when a line has another number of columns, naming it.
  """
  for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
    if not (values := line.split()):
      continue
    if len(values) != columns:
      raise ValueError(f"{path}, line {number}: expected {columns} columns, found {line!r}")
    yield f"{path}, line {number}", values


def pixel_camera(
  rotation: np.ndarray, scale: float, translation: np.ndarray, *, size: tuple[int, ...]
) -> np.ndarray:
  """A weak perspective camera in pixels as one of an example of this size.

  Args:
    rotation: [3, 3] from object space to the camera's frame; the nearest rotation is taken.
    scale: pixels per object unit.
    translation: [2] where the object's origin lands, in pixels, (0.5, 0.5) the first one's centre.
    size: height and width of the image.

  Returns:
    [7] float32, in the image's `frame_square`.

  Raises:
    BadItemError: when a value is not finite, the scale not positive, or the matrix no rotation.
  """
  if not (np.isfinite([*rotation.ravel(), *translation, scale]).all() and scale > 0.0):
    raise BadItemError("not all of its values are finite, or its scale is not positive")
  left, stretch, right = np.linalg.svd(rotation)
  if np.abs(stretch - 1.0).max() > _NEARLY_ORTHONORMAL or np.linalg.det(left @ right) < 0.0:
    raise BadItemError("its matrix is not a rotation (orthonormal, determinant 1)")
  x0, y0, side = frame_square(*size)
  tx, ty = 2.0 * (translation - np.array([x0, y0])) / side - 1.0
  x, y, z, w = Rotation.from_matrix(left @ right).as_quat(canonical=True)
  return np.array([2.0 * scale / side, tx, ty, w, x, y, z], np.float32)


def read_structs(path: pathlib.Path, variable: str) -> list[mat_struct]:
  """The elements of a struct array in a MATLAB file, one where it is a single struct.

  Args:
    path: of the file.
    variable: the array's name in it.

  Returns:
    Objects whose attributes are the fields, with dimensions of length 1 squeezed out of values.

  Raises:
    ValueError: when the file cannot be read or holds no such structs.
  """
  try:
    contents = scipy_io.loadmat(path, struct_as_record=False, squeeze_me=True)
  except Exception as error:
    # The decoder of a damaged file raises exceptions of any type.
    raise ValueError(f"{path} cannot be read ({type(error).__name__}: {error})") from error
  structs = list(np.atleast_1d(contents.get(variable, [])).ravel())
  if not structs or not all(hasattr(struct, "_fieldnames") for struct in structs):
    raise ValueError(f"{path} holds no structs named {variable!r}")
  return structs
