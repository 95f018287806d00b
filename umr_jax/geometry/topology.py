"""Everything about the mesh that never changes, computed once on the host."""

import dataclasses
import functools

import numpy as np

from umr_jax.geometry.icosphere import icosphere
from umr_jax.geometry.symmetry import order_symmetrically
from umr_jax.geometry.uv import sphere_to_uv, texel_uv
from umr_jax.types import Topology

_MAX_DEGREE = 6


@functools.lru_cache(maxsize=16)
def build_topology(level: int, *, texels_per_side: int, symmetric_texture: bool) -> Topology:
  """Connectivity, symmetry and UV layout of the template mesh.

  Args:
    level: subdivisions of the icosphere, 0 to 4.
    texels_per_side: R; every face has R * R texels.
    symmetric_texture: whether left faces read their right partners' texels. If so, `texel_uv` has
      rows for the self-mirrored and right faces only, and left vertices have their partners'
      `vertex_uv`, since nothing ever fills the left half of the map for them.

  Returns:
    The topology, the same object for the same arguments; its arrays are read-only.

  Raises:
    ValueError: for a level or texel count out of range.

  Source: Li et al. 2020, section 3; Kanazawa et al. 2018, section 3.
  """
  if texels_per_side < 1:
    raise ValueError(f"texels_per_side is {texels_per_side}; expected at least 1")
  mesh = order_symmetrically(*icosphere(level))
  num_vertices, num_faces = len(mesh.vertices), len(mesh.faces)
  edges, face_pairs = _edges(mesh.outward_faces)
  neighbors, degrees = _neighbors(edges, num_vertices)

  num_right = (num_faces - mesh.num_self_faces) // 2
  rows = np.arange(num_faces, dtype=np.int32)
  vertex_uv = sphere_to_uv(mesh.vertices)
  if symmetric_texture:
    rows[-num_right:] -= num_right
    num_left = (num_vertices - mesh.num_center) // 2
    vertex_uv[-num_left:] = vertex_uv[mesh.num_center : -num_left]
  rendered = mesh.faces[: rows.max() + 1]

  topology = Topology(
    sphere=mesh.vertices.astype(np.float32),
    faces=mesh.faces,
    outward_faces=mesh.outward_faces,
    edges=edges,
    neighbors=neighbors,
    degrees=degrees,
    face_pairs=face_pairs,
    texel_uv=texel_uv(mesh.vertices, rendered, texels_per_side=texels_per_side),
    face_texels=rows,
    vertex_uv=vertex_uv.astype(np.float32),
    num_center=mesh.num_center,
    num_self_faces=mesh.num_self_faces,
    texels_per_side=texels_per_side,
    level=level,
    symmetric_texture=symmetric_texture,
  )
  # Shared by all callers through the cache.
  for field in dataclasses.fields(topology):
    value = getattr(topology, field.name)
    if isinstance(value, np.ndarray):
      value.setflags(write=False)
  return topology


def _edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Undirected edges [E, 2], and the four vertices of the two faces at each [E, 4]."""
  directed = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
  opposite = faces[:, [2, 0, 1]].reshape(-1)
  edges, inverse = np.unique(np.sort(directed, axis=-1), axis=0, return_inverse=True)
  # A closed surface: every edge occurs twice, so that sorting brings its two faces together.
  order = np.argsort(inverse.reshape(-1), kind="stable").reshape(-1, 2)
  pairs = np.concatenate([edges, opposite[order]], axis=-1)
  return edges.astype(np.int32), pairs.astype(np.int32)


def _neighbors(edges: np.ndarray, num_vertices: int) -> tuple[np.ndarray, np.ndarray]:
  """The neighbours of every vertex [V, 6], padded with the vertex itself, and their number [V]."""
  both = np.concatenate([edges, edges[:, ::-1]])
  both = both[np.lexsort((both[:, 1], both[:, 0]))]
  degrees = np.bincount(both[:, 0], minlength=num_vertices)
  slot = np.arange(len(both)) - np.repeat(np.cumsum(degrees) - degrees, degrees)
  own = np.arange(num_vertices, dtype=np.int32)[:, None]
  neighbors = np.repeat(own, _MAX_DEGREE, axis=1)
  neighbors[both[:, 0], slot] = both[:, 1]
  return neighbors, degrees.astype(np.int32)
