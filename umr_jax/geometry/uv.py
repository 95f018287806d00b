"""The UV map: spherical coordinates of the initial sphere, fixed for good.

u runs around the vertical and v from the upper pole (z = 1, v = -1) to the lower one. The right
half of the object (y > 0) fills -0.5 < u < 0.5, in the middle of the map, as it looks from outside:
on the mirror plane u is -0.5 where x > 0 and 0.5 where x < 0. The map's seam, u = +-1, lies on the
left, at x = 0.
"""

from typing import NamedTuple

import numpy as np
from scipy import spatial

from umr_jax.geometry.sampling import texel_barycentrics
from umr_jax.types import Topology


class ExportLayout(NamedTuple):
  """A mesh whose vertices are duplicated until each has one UV position."""

  vertex_source: np.ndarray  # [V'] int32: the vertex that each copy is a copy of
  faces: np.ndarray  # [F, 3] int32 into the copies, wound outward
  uv: np.ndarray  # [V', 2] float32


def sphere_to_uv(points: np.ndarray) -> np.ndarray:
  """Where on the UV map a direction lies.

  Args:
    points: [*N, 3], of any length but zero.

  Returns:
    [*N, 2]: u in [-1, 1) and v in [-1, 1]. At the poles, where u has no value, it is finite.

  Raises:
    ValueError: for a point of no direction.

  Source: Kanazawa et al. 2018, section 3.2 (the UV map of a sphere), which Li et al. 2020 adopt.
    Departs: turned by a quarter, which moves the half that a symmetric texture uses from the border
    of the map, where half of each filter covers padding, to its middle.
  """
  x, y, z = np.moveaxis(np.asarray(points, np.float64), -1, 0)
  # From the arc tangent rather than the arc cosine, which loses half the digits at the poles.
  horizontal = np.hypot(x, y)
  if np.any((horizontal == 0.0) & (z == 0.0)):
    raise ValueError("found a point at the origin; a UV position needs a direction")
  v = 2.0 * np.arctan2(horizontal, z) / np.pi - 1.0
  return np.stack([_wrap(np.arctan2(y, x) / np.pi - 0.5), v], axis=-1)


def uv_directions(height: int) -> np.ndarray:
  """The direction that each pixel of a UV map stands for, the inverse of `sphere_to_uv`.

  Args:
    height: rows of the map, which has twice as many columns.

  Returns:
    [height, 2 * height, 3] float64 unit vectors.
  """
  v, u = np.mgrid[0:height, 0 : 2 * height] + 0.5
  polar, around = np.pi * v / height, np.pi * (u / height - 0.5)
  return np.stack(
    [np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], axis=-1
  )


def uv_corners(topology: Topology, height: int) -> tuple[np.ndarray, np.ndarray]:
  """On which face each pixel of a UV map lies, and where on it.

  Args:
    topology: the mesh.
    height: rows of the map.

  Returns:
    The face's vertices [height, 2 height, 3] int32, and the pixel's barycentric weights: of the
    point of the initial sphere's flat face in the pixel's direction.
  """
  directions = uv_directions(height).reshape(-1, 3)
  sphere = np.asarray(topology.sphere, np.float64)
  # The triangles of an icosphere are acute: the nearest vertex belongs to the face in question.
  nearest = spatial.cKDTree(sphere).query(directions)[1]
  order = np.argsort(topology.faces.reshape(-1), kind="stable")
  counts = np.bincount(topology.faces.reshape(-1), minlength=len(sphere))
  starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
  turn = np.minimum(np.arange(counts.max()), counts[nearest, None] - 1)
  candidates = order[starts[nearest, None] + turn] // 3  # [N, 6] faces
  # A direction is inside a face if it is a sum of the corners with weights that are not negative.
  inverse = np.linalg.inv(sphere[topology.faces])  # rows are corners: d = w C
  weights = np.einsum("nd,nfdc->nfc", directions, inverse[candidates])
  inside = np.argmax(weights.min(axis=-1), axis=-1)[:, None]
  faces = np.take_along_axis(candidates, inside, axis=1)[:, 0]
  weights = np.take_along_axis(weights, inside[..., None], axis=1)[:, 0]
  weights = np.maximum(weights, 0.0)
  weights /= weights.sum(axis=-1, keepdims=True)
  shape = (height, 2 * height, 3)
  corners = topology.faces[faces].astype(np.int32)
  return corners.reshape(shape), weights.astype(np.float32).reshape(shape)


def mirrored_columns(height: int) -> np.ndarray:
  """The column of a UV map that shows the mirror image of each column: [2 height] int."""
  return (height - 1 - np.arange(2 * height)) % (2 * height)


def texel_uv(sphere: np.ndarray, faces: np.ndarray, *, texels_per_side: int) -> np.ndarray:
  """Where on the UV map each texel of each face reads its value.

  Args:
    sphere: [V, 3] vertices of the initial sphere.
    faces: [F, 3] vertex indices. The order of a face's corners is the order of its texels: these
      must be the faces that are rendered.
    texels_per_side: R.

  Returns:
    [F, R * R, 2] float32: the UV position of each texel's centroid, put onto the sphere.
  """
  corners = np.asarray(sphere, np.float64)[faces]
  centroids = np.einsum("tc,fcd->ftd", texel_barycentrics(texels_per_side), corners)
  return sphere_to_uv(centroids).astype(np.float32)


def export_layout(topology: Topology) -> ExportLayout:
  """The mesh as files store it: one UV position for each vertex, and no face torn by the seam.

  A texture mapped with this layout shows what the renderer shows: every face reads the region of
  the map that its texels read. Vertices are duplicated where faces disagree: along the map's seam,
  at the poles (where each face takes the u in the middle of its other two corners), and, with a
  symmetric texture, around the self-mirrored faces, which alone read the left half of the map.

  Args:
    topology: the mesh.

  Returns:
    The layout. v is in [-1, 1]. A face that the seam crosses keeps its u in one piece, and so
    reaches beyond -1 or 1 by less than its own width: the texture must repeat in u, as textures of
    GLB and OBJ files do unless told otherwise.
  """
  corners = np.asarray(topology.sphere, np.float64)[topology.faces]  # [F, 3, 3]
  centroid_u = sphere_to_uv(corners.mean(axis=1))[:, None, 0]
  uv = sphere_to_uv(corners)
  # Each corner's u is moved by a whole turn to where it is nearest to the face's middle.
  u = centroid_u + _wrap(uv[..., 0] - centroid_u)
  at_pole = np.hypot(corners[..., 0], corners[..., 1]) < 1e-6
  others = np.sum(np.where(at_pole, 0.0, u), axis=1, keepdims=True) / 2.0
  uv = np.stack([np.where(at_pole, others, u), uv[..., 1]], axis=-1)
  # With a symmetric texture a left face reads its right partner's row, corner by corner.
  uv = uv[topology.face_texels]

  # Left faces wind inward in `faces`: find each outward corner's place there.
  place = np.argmax(topology.outward_faces[:, :, None] == topology.faces[:, None, :], axis=-1)
  uv = np.take_along_axis(uv, place[..., None], axis=1)

  # Equal up to rounding is equal: 1e-7 is far below a pixel of any map.
  exact = np.round(uv.reshape(-1, 2) * 1e7).astype(np.int64)
  keys = np.concatenate([topology.outward_faces.reshape(-1, 1).astype(np.int64), exact], axis=-1)
  _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
  return ExportLayout(
    vertex_source=keys[first, 0].astype(np.int32),
    faces=inverse.reshape(-1, 3).astype(np.int32),
    uv=uv.reshape(-1, 2)[first].astype(np.float32),
  )


def _wrap(u: np.ndarray) -> np.ndarray:
  """u moved by whole turns of the map, 2, into [-1, 1)."""
  return np.mod(u + 1.0, 2.0) - 1.0
