"""Picking: the visible point of a mesh at a place in the image."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from umr_jax.types import checked

# Twice the area, in units of the image, below which a projected face is a line and is never hit.
_FLAT = 1e-12
# A place on the side that two faces share must hit one of them, whatever the rounding.
_ROUNDING = -1e-6
_CHUNK = 256  # places at once, each of which is compared with every face


class SurfacePoints(NamedTuple):
  """N points of a surface, as weighted corners of faces."""

  corners: Int[np.ndarray, "N 3"]  # vertices
  weights: Float[np.ndarray, "N 3"]  # barycentric, not negative, sum 1
  distance: Float[np.ndarray, "N"]  # in the image, from what was asked for

  def at(self, vertices: Float[np.ndarray, "V C"]) -> Float[np.ndarray, "N C"]:
    """Where these points are on a mesh of the same faces, or what any values of vertices are.

    Args:
      vertices: [V, C], one row for each vertex of the mesh that was picked from.
    """
    return np.einsum("nk,nkc->nc", self.weights, vertices[self.corners])


@checked
def pick(
  points: Float[np.ndarray, "N 2"],
  vertices: Float[np.ndarray, "V 3"],
  faces: Int[np.ndarray, "F 3"],
) -> SurfacePoints:
  """The nearest surface at each place of an image, or the nearest point of the mesh's outline.

  Args:
    points: places (x, y) in the image.
    vertices: projected, (x, y, depth); depth grows away from the viewer.
    faces: of the mesh, wound either way.

  Returns:
    For each place the point of the surface. What is hit is interpolated in the image, which under
    weak perspective is exact.
  """
  triangles = vertices[faces]
  face, weights = np.zeros(len(points), np.int64), np.zeros((len(points), 3))
  distance = np.zeros(len(points))
  for start in range(0, len(points), _CHUNK):
    rows = np.arange(start, min(start + _CHUNK, len(points)))
    face[rows], weights[rows], hit = _nearest_hit(points[rows], triangles)
    rows = rows[~hit]
    face[rows], weights[rows], distance[rows] = _nearest_on_sides(points[rows], triangles[..., :2])
  weights /= weights.sum(axis=1, keepdims=True)
  return SurfacePoints(faces[face], weights, distance)


def _nearest_hit(
  points: np.ndarray, triangles: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The face of least depth on each place: its number [N], weights [N, 3], whether there is one."""
  weights = _barycentric(points, triangles[..., :2])
  hits = weights.min(axis=-1) >= _ROUNDING  # [N, F]; NaN of flat faces is no hit
  depth = np.einsum("nfk,fk->nf", np.where(hits[..., None], weights, 0.0), triangles[..., 2])
  face = np.argmin(np.where(hits, depth, np.inf), axis=1)
  chosen = np.clip(weights[np.arange(len(points)), face], 0.0, 1.0)
  return face, chosen, hits.any(axis=1)


def _barycentric(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
  """Weights [N, F, 3] of points [N, 2] in triangles [F, 3, 2]; NaN in those without an area."""
  # Each corner's weight is the area of the triangle of the point and the opposite side.
  starts, ends = np.roll(triangles, -1, axis=1), np.roll(triangles, -2, axis=1)
  sides = ends - starts
  offsets = points[:, None, None] - starts[None]  # [N, F, 3, 2]
  areas = sides[..., 0] * offsets[..., 1] - sides[..., 1] * offsets[..., 0]
  total = areas.sum(axis=-1, keepdims=True)
  total = np.where(np.abs(total) < _FLAT, np.nan, total)
  return areas / total


def _nearest_on_sides(
  points: np.ndarray, triangles: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The nearest point of any face's sides: its face [N], weights [N, 3] and distance [N]."""
  starts, ends = triangles, np.roll(triangles, -1, axis=1)  # [F, 3, 2]
  sides = ends - starts
  offsets = points[:, None, None] - starts[None]
  length = np.maximum(np.square(sides).sum(axis=-1), _FLAT)
  along = np.clip((offsets * sides).sum(axis=-1) / length, 0.0, 1.0)
  away = np.linalg.norm(offsets - along[..., None] * sides, axis=-1)  # [N, F, 3]
  best = np.argmin(away.reshape(len(points), 3 * len(triangles)), axis=1)
  face, side = best // 3, best % 3
  rows = np.arange(len(points))
  weights = np.zeros((len(points), 3))
  weights[rows, side] = 1.0 - along[rows, face, side]
  weights[rows, (side + 1) % 3] = along[rows, face, side]
  return face, weights, away[rows, face, side]
