"""Where round 0 begins: the sphere, or the category's mean silhouette blown up into a solid.

From a sphere nothing tells views apart, and what does not differ cannot be learned. A silhouette's
profile tells which end is which, and which way is up, before any camera is known.
"""

import contourpy
import numpy as np
from jaxtyping import Float
from scipy import sparse
from scipy.sparse.linalg import spsolve

from umr_jax.geometry.symmetry import halve
from umr_jax.types import Topology

_SWEEPS = 20


def unit_sphere(topology: Topology) -> np.ndarray:
  """[Vh, 3] float32: the half vertices of the unit sphere, where the paper starts."""
  sphere = np.asarray(topology.sphere).astype(np.float32)
  return np.asarray(halve(sphere, num_center=topology.num_center))


def mean_profile(maps: Float[np.ndarray, "N S S C"]) -> Float[np.ndarray, "S S C"]:
  """The profile of a category: the mean of its silhouettes, all made to look the same way.

  Silhouettes that are their own mirror image (views from the front) say little about the profile:
  an image counts by how much it differs from its mirror image in the way in which the others do.

  Args:
    maps: of crops around the object: silhouettes, and whatever else tells their ends apart, such as
      part probabilities.

  Returns:
    Values in [0, 1]; the silhouette's higher side, in most animals the head, is on the right.

  Raises:
    ValueError: if no image differs from its mirror image, or there is none.
  """
  uneven = (maps - maps[:, :, ::-1]).reshape(len(maps), -1).astype(np.float64)
  if not uneven.any():
    raise ValueError("every mask is its own mirror image: start from geometry.init='sphere'")
  # The direction in which images differ most from their mirror images, then the mean's own. The
  # images' products with one another are a smaller matrix than theirs with the pixels'.
  direction = np.linalg.eigh(uneven @ uneven.T)[1][:, -1] @ uneven
  for _ in range(_SWEEPS):
    score = uneven @ direction
    mean = np.tensordot(np.maximum(score, 0.0), maps, 1)
    mean += np.tensordot(np.maximum(-score, 0.0), maps, 1)[:, ::-1]
    mean /= np.abs(score).sum()
    direction = (mean - mean[:, ::-1]).reshape(-1)
  rows, columns = np.mgrid[: maps.shape[1], : maps.shape[2]]
  place = np.stack([columns.ravel(), -rows.ravel()])
  leaning = np.cov(place, aweights=mean[..., 0].ravel())[0, 1]
  return mean if leaning >= 0 else mean[:, ::-1].copy()


def inflate(
  silhouette: Float[np.ndarray, "S S"], topology: Topology, *, width: float
) -> Float[np.ndarray, "Vh 3"]:
  """A symmetric solid whose view from the side is the silhouette.

  The circle of centre vertices is laid along the outline, at even distances. The side's vertices
  spread inside it like a drumhead hung into that frame (a harmonic map), and rise from the mirror
  plane like one under even pressure (a Poisson problem), so that the outline stays the rim.

  Args:
    silhouette: its level 0.5 (or half its maximum, where that is lower) is the outline.
    topology: of the mesh.
    width: of the solid (y), as a share of its length (x).

  Returns:
    float32 half vertices, in the units of the crop: its sides are at -1 and 1.
  """
  outline = _outline(silhouette)
  center, count = topology.num_center, topology.num_half
  sphere = np.asarray(halve(np.asarray(topology.sphere), num_center=center))
  neighbors = np.asarray(topology.neighbors)[:count]
  crossing = neighbors >= count
  # A neighbour across the plane is the mirror image of one on this side: the same in the plane, its
  # negative in height. Rows are padded with the vertex itself, which drops out of a Laplacian.
  neighbors = np.where(crossing, neighbors - (count - center), neighbors)

  def laplacian(across: float) -> sparse.csc_matrix:
    weights = np.where(crossing, across, 1.0)
    rows = np.repeat(np.arange(count), neighbors.shape[1])
    shape = (count, count)
    links = sparse.csr_matrix((weights.ravel(), (rows, neighbors.ravel())), shape)
    return (sparse.identity(count) * neighbors.shape[1] - links).tocsc()

  # The rim: the vertices of the mirror plane, and those whose edges cross it.
  rim = crossing.any(axis=1) | (np.arange(count) < center)
  half = np.zeros((count, 3), np.float32)
  half[rim, ::2] = _along(outline, np.arctan2(sphere[rim, 2], sphere[rim, 0]))
  flat = laplacian(1.0)
  half[~rim, ::2] = spsolve(flat[~rim][:, ~rim], -flat[~rim][:, rim] @ half[rim, ::2])
  height = np.sqrt(spsolve(laplacian(-1.0)[center:, center:], np.ones(count - center)))
  length = np.ptp(outline[:, 0])
  half[center:, 1] = np.sign(sphere[center:, 1]) * height * (0.5 * width * length / height.max())
  return half


def _outline(silhouette: np.ndarray) -> np.ndarray:
  """[N, 2] x, z: the longest closed outline, counterclockwise, the first point not repeated."""
  size = silhouette.shape[0]
  level = min(0.5, 0.5 * float(silhouette.max()))
  padded = np.pad(silhouette, 1)
  lines = [np.asarray(line) for line in contourpy.contour_generator(z=padded).lines(level)]
  points = max(lines, key=lambda line: np.linalg.norm(np.diff(line, axis=0), axis=1).sum())[:-1]
  # Pixel i (i + 1 in the padded array) covers [i, i + 1] / size of the crop; image y points down.
  outline = 2.0 * (points - 0.5) / size - 1.0
  outline[:, 1] *= -1.0
  x, z = outline.T
  area = np.sum(x * np.roll(z, -1) - np.roll(x, -1) * z)
  return outline if area > 0 else outline[::-1]


def _along(outline: np.ndarray, angle: np.ndarray) -> np.ndarray:
  """Points of a closed outline, as far along it as `angle` is around the circle.

  Angle 0 is the outline's rightmost point.
  """
  outline = np.roll(outline, -int(np.argmax(outline[:, 0])), axis=0)
  closed = np.concatenate([outline, outline[:1]])
  lengths = np.linalg.norm(np.diff(closed, axis=0), axis=1)
  distance = np.concatenate([[0.0], np.cumsum(lengths)])
  wanted = (angle % (2.0 * np.pi)) / (2.0 * np.pi) * distance[-1]
  return np.stack([np.interp(wanted, distance, closed[:, i]) for i in (0, 1)], axis=-1)
