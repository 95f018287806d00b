"""Reading the annotation files of a user's folder: splits, keypoints and cameras."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from umr_jax.data.folder_files import BadItemError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def read_json(path: pathlib.Path) -> dict[str, Any] | None:
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


def parse_keypoints(points: Any, *, count: int) -> np.ndarray:
  """The [x, y, visible] rows of one image as [count, 3] float32; hidden ones may be null.

  Raises:
    BadItemError: when they are not `count` rows of numbers.
  """
  try:
    rows = np.array(points, dtype=np.float32)  # None becomes NaN
  except (TypeError, ValueError) as error:
    raise BadItemError(f"keypoints.json: not rows of [x, y, visible] ({error})") from error
  if rows.shape != (count, 3):
    raise BadItemError(f"keypoints.json: {rows.shape} values, expected {count} of [x, y, visible]")
  rows[:, 2] = np.nan_to_num(rows[:, 2]) > 0.5
  hidden = rows[:, 2] == 0.0
  rows[hidden] = np.nan_to_num(rows[hidden], posinf=0.0, neginf=0.0)
  if not np.isfinite(rows).all():
    raise BadItemError("keypoints.json: a visible keypoint has no finite position")
  return rows


def parse_camera(entry: Any) -> np.ndarray:
  """A camera of cameras.json as [7]: scale, translation, quaternion (w, x, y, z).

  Raises:
    BadItemError: when a value is missing or not finite, or the rotation is none.
  """
  if not isinstance(entry, Mapping):
    raise BadItemError("cameras.json: expected an object with rotation, scale, tx and ty")
  try:
    rotation = np.array(entry["rotation"], dtype=np.float64).reshape(3, 3)
    values = np.array([entry[key] for key in ("scale", "tx", "ty")], dtype=np.float64)
  except (KeyError, TypeError, ValueError) as error:
    raise BadItemError(f"cameras.json: needs rotation 3x3, scale, tx, ty ({error!r})") from error
  finite = np.isfinite(rotation).all() and np.isfinite(values).all()
  if not finite or values[0] <= 0.0:
    raise BadItemError("cameras.json: values must be finite and the scale positive")
  gap = np.abs(rotation @ rotation.T - np.eye(3)).max()
  if gap > 1e-3 or np.linalg.det(rotation) < 0.0:
    raise BadItemError("cameras.json: the matrix is not a rotation (orthonormal, determinant 1)")
  x, y, z, w = Rotation.from_matrix(rotation).as_quat(canonical=True)
  return np.array([*values, w, x, y, z], np.float32)


def seeded_split(count: int, test_fraction: float, seed: int) -> dict[str, list[int]]:
  """A random split that leaves at least one image to each side, where there are two."""
  tests = min(round(count * test_fraction), count - 1)
  if test_fraction > 0.0 and count >= 2:
    tests = max(tests, 1)
  order = np.random.default_rng(seed).permutation(count).tolist()
  return {"train": sorted(order[tests:]), "test": sorted(order[:tests])}


def parse_splits(value: dict[str, Any] | None, folder: pathlib.Path) -> dict[str, list[str]] | None:
  """The names of both splits, or None where there is no splits.json.

  Raises:
    ValueError: when they are no lists of names, or a name is in both.
  """
  if value is None:
    return None
  splits = {}
  for split in ("train", "test"):
    names = value.get(split, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
      raise ValueError(f"{folder / 'splits.json'}: {split!r} must be a list of image names")
    # NAME.jpg is understood as NAME.
    bare = [
      name[: -len(pathlib.Path(name).suffix)] if name.lower().endswith(IMAGE_SUFFIXES) else name
      for name in names
    ]
    splits[split] = list(dict.fromkeys(bare))
  if both := sorted(set(splits["train"]) & set(splits["test"])):
    raise ValueError(f"{folder / 'splits.json'}: in train and in test at once: {both[:5]}")
  return splits


def parse_keypoint_file(
  value: dict[str, Any] | None, folder: pathlib.Path
) -> tuple[tuple[str, ...], tuple[int, ...], dict[str, Any]]:
  """Names, flip and points of keypoints.json; empty where there is none.

  Raises:
    ValueError: when one is missing, or the flip is no permutation that undoes itself.
  """
  if value is None:
    return (), (), {}
  path = folder / "keypoints.json"
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
