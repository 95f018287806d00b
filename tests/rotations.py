"""Rotations as SciPy knows them, in the package's order of a quaternion's components."""

import numpy as np
from scipy.spatial.transform import Rotation


def quaternions(matrices):
  """[..., 4] float32, (w, x, y, z), of rotation matrices [..., 3, 3]."""
  matrices = np.asarray(matrices, np.float64)
  found = Rotation.from_matrix(matrices.reshape(-1, 3, 3)).as_quat()[:, [3, 0, 1, 2]]
  return found.reshape(*matrices.shape[:-2], 4).astype(np.float32)


def degrees_between(a, b):
  """The angles [...] of the rotations that take one set of quaternions [..., 4] to another."""
  shape = np.shape(a)[:-1]
  one, other = (
    Rotation.from_quat(np.asarray(q, np.float64).reshape(-1, 4)[:, [1, 2, 3, 0]]) for q in (a, b)
  )
  return np.degrees((one.inv() * other).magnitude()).reshape(shape)
