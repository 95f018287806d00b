"""From a mesh of one level to the same surface at the next one."""

import numpy as np
from scipy import spatial

from umr_jax.types import Topology


def parents(coarse: Topology, fine: Topology) -> np.ndarray:
  """Which two vertices of a level lie to both sides of each vertex of the next level.

  Args:
    coarse: a mesh.
    fine: the mesh of the next level.

  Returns:
    [V, 2] int32, for each vertex of `fine` the ends of the edge whose middle it is, or twice the
    vertex that it is itself: `0.5 * (v[:, 0] + v[:, 1])` of these is the same surface, finer.

  Raises:
    ValueError: if the levels do not follow each other.
  """
  if fine.level != coarse.level + 1:
    raise ValueError(f"level {fine.level} does not follow level {coarse.level}")
  own = np.arange(len(coarse.sphere), dtype=np.int32)
  # The nearest: middles of the sphere's own subdivision lie a little beside these.
  pairs = np.concatenate([np.stack([own, own], axis=-1), coarse.edges])
  middles = np.asarray(coarse.sphere, np.float64)[pairs].mean(axis=1)
  middles /= np.linalg.norm(middles, axis=-1, keepdims=True)
  return pairs[spatial.KDTree(middles).query(fine.sphere)[1]]


def refine(vertices: np.ndarray, coarse: Topology, fine: Topology) -> np.ndarray:
  """The vertices [V, C] of a mesh at the next level, the surface unchanged.

  Args:
    vertices: [V, C] of the coarse mesh.
    coarse: its mesh.
    fine: the mesh of the next level.
  """
  return vertices[parents(coarse, fine)].mean(axis=1).astype(vertices.dtype)
