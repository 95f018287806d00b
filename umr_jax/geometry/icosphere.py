"""The unit icosphere, where every template starts, and meshes of one level at the next one."""

import itertools

import numpy as np
from scipy import spatial

from umr_jax.types import Topology

# Above this an icosphere has more faces (20,480) than the renderer is meant for.
MAX_LEVEL = 4


def icosphere(level: int) -> tuple[np.ndarray, np.ndarray]:
  """Subdivides an icosahedron, and projects the result onto the unit sphere.

  The midpoints are taken on the flat icosahedron and projected once, at the end; projecting after
  every subdivision would give another, slightly more even mesh.

  Args:
    level: how often each edge is halved: 0 to 4 give 12, 42, 162, 642 and 2562 vertices.

  Returns:
    Vertices [V, 3], float64, of unit length, mirror symmetric to the last bit in each of x, y and
    z; and faces [F, 3], int32, counter-clockwise when viewed from outside.

  Raises:
    ValueError: for any other level.

  Source: Li et al. 2020, section 3: a sphere of 642 vertices and 1280 faces (level 3).
  """
  if isinstance(level, bool) or not isinstance(level, int | np.integer):
    raise ValueError(f"level is {level!r}; expected a whole number from 0 to {MAX_LEVEL}")
  if not 0 <= level <= MAX_LEVEL:
    raise ValueError(f"level is {level}; expected 0 to {MAX_LEVEL} (12 to 2562 vertices)")
  vertices, faces = _icosahedron()
  for _ in range(level):
    vertices, faces = _subdivide(vertices, faces)
  return vertices / np.linalg.norm(vertices, axis=-1, keepdims=True), faces


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


def _icosahedron() -> tuple[np.ndarray, np.ndarray]:
  """The 12 corners (0, +-1, +-t) and their rotations, t the golden ratio, and the 20 faces."""
  t = 0.5 * (1.0 + np.sqrt(5.0))
  corners = [(x, y, 0.0) for y in (t, -t) for x in (-1.0, 1.0)]
  corners += [(0.0, y, z) for z in (t, -t) for y in (-1.0, 1.0)]
  corners += [(x, 0.0, z) for x in (t, -t) for z in (-1.0, 1.0)]
  vertices = np.array(corners)
  # Corners that share an edge are 2 apart; the next distance is 2 t = 3.24.
  near = np.linalg.norm(vertices[:, None] - vertices[None], axis=-1) < 2.5
  faces = []
  for a, b, c in itertools.combinations(range(12), 3):
    if near[a, b] and near[b, c] and near[a, c]:
      outward = np.linalg.det(vertices[[a, b, c]]) > 0.0
      faces.append((a, b, c) if outward else (a, c, b))
  return vertices, np.array(faces, np.int32)


def _subdivide(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Splits every face in four at the midpoints of its edges; keeps the winding."""
  edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=-1)
  unique, inverse = np.unique(edges, axis=0, return_inverse=True)
  midpoints = 0.5 * (vertices[unique[:, 0]] + vertices[unique[:, 1]])
  a, b, c = faces.T
  ab, bc, ca = (len(vertices) + inverse.reshape(-1, 3)).T
  split = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
  new_faces = np.stack([np.stack(corners, axis=-1) for corners in split], axis=1).reshape(-1, 3)
  return np.concatenate([vertices, midpoints]), new_faces.astype(np.int32)
