"""The initial template: the unit sphere, or the mean silhouette inflated into a solid.

All views of a sphere are alike, so that its cameras have no gradient to follow. The mean silhouette
of a category fixes which end is which, and which way is up, before any camera is known.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve
from skimage import measure

from umr_jax.geometry.symmetry import halve, symmetrize
from umr_jax.geometry.uv import uv_corners
from umr_jax.types import Topology

_SWEEPS = 20
# Standard deviation of the blur of the mean part map, as a share of its side: it fills the holes
# where no image shows a part.
_BLUR = 0.03


def unit_sphere(topology: Topology) -> np.ndarray:
  """[Vh, 3] float32: the half vertices of the unit sphere, the paper's template."""
  sphere = np.asarray(topology.sphere).astype(np.float32)
  return np.asarray(halve(sphere, num_center=topology.num_center))


def mean_profile(maps: Float[np.ndarray, "N S S C"]) -> Float[np.ndarray, "S S C"]:
  """The mean of a category's silhouettes, mirrored so that all face the same way.

  Silhouettes that are their own mirror image (views from the front) carry no information on the
  side view: an image is weighted by how much it differs from its mirror image along the direction
  in which the others do (the first principal component of the antisymmetric parts).

  Args:
    maps: of crops around the object: silhouettes, and any further channels that distinguish the
      two ends, such as part probabilities.

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

  The centre vertices are placed along the outline at even distances. The other vertices' x and z
  are the harmonic map inside that boundary, and their height above the mirror plane is the square
  root of the solution of a Poisson problem that vanishes on it, so that the outline stays the rim.

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


def init_canonical_uv(
  parts: Float[np.ndarray, "S S P1"],
  half_vertices: Float[np.ndarray, "Vh 3"],
  topology: Topology,
  *,
  uv_height: int,
) -> Float[np.ndarray, "Hu Wu P1"]:
  """The mean part map, projected from the side onto the solid inflated from the mean silhouette.

  Both sides of the mesh take the same parts. Nothing on the template is background.

  Args:
    parts: mean part map of the mirrored images (`mean_profile`), background first; its sides are at
      -1 and 1 of the template's x and (upwards) z.
    half_vertices: the template, from `inflate`.
    topology: of the mesh.
    uv_height: rows of the map.

  Departs: in the paper the initial canonical map is the first M-step's, when cameras and flow have
    been learned without parts. Averaging over wrong cameras gives no usable map.
  """
  size = parts.shape[0]
  vertices = np.asarray(symmetrize(jnp.asarray(half_vertices), num_center=topology.num_center))
  nearest, weights = uv_corners(topology, uv_height)
  places = np.einsum("hwk,hwkc->hwc", weights, vertices[nearest])
  row = 0.5 * size * (1.0 - places[..., 2]) - 0.5
  column = 0.5 * size * (1.0 + places[..., 0]) - 0.5
  blurred = ndimage.gaussian_filter(parts[..., 1:], (_BLUR * size, _BLUR * size, 0))
  shares = blurred / np.maximum(blurred.sum(-1, keepdims=True), 1e-12)
  found = [
    ndimage.map_coordinates(plane, (row, column), order=1, mode="nearest")
    for plane in np.moveaxis(shares, -1, 0)
  ]
  return np.stack([np.zeros(row.shape), *found], axis=-1).astype(np.float32)


def _outline(silhouette: np.ndarray) -> np.ndarray:
  """[N, 2] x, z: the longest closed outline, counterclockwise, the first point not repeated."""
  size = silhouette.shape[0]
  level = min(0.5, 0.5 * float(silhouette.max()))
  lines = measure.find_contours(np.pad(silhouette, 1), level)
  longest = max(lines, key=lambda line: np.linalg.norm(np.diff(line, axis=0), axis=1).sum())
  points = longest[:-1, ::-1]  # from (row, column) to (x, y)
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
