"""What published annotation files share: tables of text, MATLAB's structs, cameras in pixels."""

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import io as scipy_io
from scipy.spatial.transform import Rotation

from umr_jax.data.example import frame_square
from umr_jax.data.folder_files import BadItemError

# Takes points of a frame that is left, back, up, the one of CMR's shapes and of PASCAL3D+'s models,
# to object space, which is front, left, up: a quarter turn about the vertical.
FROM_LEFT_BACK_UP = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])

# How far the singular values of a camera's 3x3 matrix may be from 1.
_NEARLY_ORTHONORMAL = 1e-2


def read_rows(path: pathlib.Path, columns: int) -> Iterator[tuple[str, list[str]]]:
  """The filled lines of a text file, as (file and line for messages, columns).

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
    size: height and width of the picture.

  Returns:
    [7] float32, in the picture's `frame_square`.

  Raises:
    BadItemError: when a value is not finite, the scale not positive, or the matrix no rotation.
  """
  if not (np.isfinite([*rotation.ravel(), *translation, scale]).all() and scale > 0.0):
    raise BadItemError("not all of its values are finite, or its scale is not positive")
  left, stretch, right = np.linalg.svd(rotation)
  if np.abs(stretch - 1.0).max() > _NEARLY_ORTHONORMAL or np.linalg.det(left @ right) < 0.0:
    raise BadItemError("its matrix is no rotation (orthonormal, determinant 1)")
  x0, y0, side = frame_square(*size)
  tx, ty = 2.0 * (translation - np.array([x0, y0])) / side - 1.0
  x, y, z, w = Rotation.from_matrix(left @ right).as_quat(canonical=True)
  return np.array([2.0 * scale / side, tx, ty, w, x, y, z], np.float32)


def read_structs(path: pathlib.Path, variable: str) -> list[Any]:
  """The elements of a struct array in a MATLAB file, one where it is a single struct.

  Returns:
    Objects whose attributes are the fields, with dimensions of length 1 squeezed out of values.

  Raises:
    ValueError: when the file cannot be read or holds no such structs.
  """
  try:
    contents = scipy_io.loadmat(path, struct_as_record=False, squeeze_me=True)
  except Exception as error:
    # The decoder of a damaged file raises whatever it stumbles over.
    raise ValueError(f"{path} cannot be read ({type(error).__name__}: {error})") from error
  structs = list(np.atleast_1d(contents.get(variable, [])).ravel())
  if not structs or not all(hasattr(struct, "_fieldnames") for struct in structs):
    raise ValueError(f"{path} holds no structs named {variable!r}")
  return structs
