"""From a mesh of one level to the same surface at the next one."""

import numpy as np
from jaxtyping import Float
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


def refine_half(
  half: Float[np.ndarray, "*B Vh 3"], coarse: Topology, fine: Topology, *, squares: bool = False
) -> Float[np.ndarray, "*B Wh 3"]:
  """The learned half of a mesh, or of offsets, at the next level: the surface is unchanged.

  Args:
    half: [centre | right] vertices of `coarse`.
    coarse: its mesh.
    fine: the mesh of the next level.
    squares: whether these are squares of coordinates, which a mirror does not negate.

  Returns:
    [centre | right] vertices of `fine`.

  Raises:
    ValueError: if the levels do not follow each other.
  """
  count, center = coarse.num_half, coarse.num_center
  rows = parents(coarse, fine)[: fine.num_half]
  left = rows >= count
  # In the mirror plane y is 0, whatever is stored there.
  across = np.where(rows < center, 0.0, np.where(left & (not squares), -1.0, 1.0))
  signs = np.stack([np.ones_like(across), across, np.ones_like(across)], axis=-1)
  ends = half[..., np.where(left, rows - (count - center), rows), :]
  return (0.5 * (ends * signs).sum(axis=-2)).astype(half.dtype)
