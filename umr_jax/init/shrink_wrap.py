"""A template mesh around a volume: the sphere, drawn onto the surface of its largest piece."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from scipy import ndimage

from umr_jax.geometry.subdivision import refine
from umr_jax.geometry.symmetry import halve, symmetrize
from umr_jax.geometry.topology import build_topology
from umr_jax.geometry.uv import uv_corners
from umr_jax.init.visual_hull import HALF, Volume
from umr_jax.losses.shape import laplacian_loss
from umr_jax.types import Topology

# Few vertices find their way, without folds; the finer levels start from what they found.
_FIRST_LEVEL, _STEPS, _LEARNING_RATE = 1, 300, 0.02
# The smoothness fades from 1 to its last share within this share of the steps.
_FADED, _LAST = 0.8, 0.05
_EDGE, _LAPLACIAN = 0.15, 0.3
_POINTS = 3000
# Where a face is compared with the surface: near each corner, and in the middle.
_ON_FACE = np.array([[4, 1, 1], [1, 4, 1], [1, 1, 4], [2, 2, 2]], np.float32) / 6.0
# What it counts that faces look where the surface does: opposite ones are as far apart as points at
# a distance of twice this. Without it, thin parts were covered by the wrong side of the sphere.
_TURNED = 0.2
# Blur, in cells: of the parts, so that no cell on the surface knows nothing, and of the opacity
# whose slope is the surface's direction.
_BLUR = 1.0


def surface_points(
  opacity: Float[np.ndarray, "R R R"], *, level: float
) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"]]:
  """Points of object space where the largest connected piece begins, and the way out of it there.

  Raises:
    ValueError: if no cell has that opacity.
  """
  labels, count = ndimage.label(opacity > level)
  if not count:
    raise ValueError("the silhouettes agree on no solid: start from geometry.init='silhouettes'")
  largest = 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
  # Other pieces are as empty as what surrounds them.
  one = np.where((labels == largest) | (labels == 0), opacity, 0.0)
  height = np.pad(one - level, 1, constant_values=-level)
  found = []
  for axis in range(3):
    line = np.moveaxis(height, axis, 0)
    before, after = line[:-1], line[1:]
    at = np.argwhere((before > 0.0) != (after > 0.0))
    first, second = before[tuple(at.T)], after[tuple(at.T)]
    place = at.astype(np.float64)
    place[:, 0] += first / (first - second)
    found.append(np.insert(place[:, 1:], axis, place[:, 0], axis=1))
  # The padding moved cells by one; cell i covers [i, i + 1] / R of the cube.
  cells = np.concatenate(found) - 1.0
  slope = np.gradient(-ndimage.gaussian_filter(opacity, _BLUR))
  outward = np.stack(
    [ndimage.map_coordinates(along, cells.T, order=1, mode="nearest") for along in slope], axis=-1
  )
  outward /= np.maximum(np.linalg.norm(outward, axis=-1, keepdims=True), 1e-12)
  return HALF * ((2.0 * cells + 1.0) / opacity.shape[0] - 1.0), outward


def wrap(
  points: Float[np.ndarray, "N 3"], outward: Float[np.ndarray, "N 3"], topology: Topology
) -> Float[np.ndarray, "Vh 3"]:
  """The sphere, drawn onto points of a symmetric surface.

  It starts as the ellipsoid that fills their box; each point draws what of the mesh is nearest and
  looks the same way, and is drawn to by it, while edges that resist being long and uneven give in
  bit by bit.

  Args:
    points: of the surface.
    outward: the unit vectors that lead out of it.
    topology: of the mesh.

  Returns:
    float32 half vertices.
  """
  low, high = points.min(axis=0), points.max(axis=0)
  wide = np.abs(points[:, 1]).max()
  middle, radii = 0.5 * (low + high) * [1, 0, 1], [0.5, 0, 0.5] * (high - low) + [0, wide, 0]
  thinned = np.linspace(0, len(points) - 1, min(len(points), _POINTS)).astype(int)
  both = [np.concatenate([a, a * [1, -1, 1]]) for a in (points[thinned], outward[thinned])]
  mirrored = np.concatenate([both[0], _TURNED * both[1]], axis=1).astype(np.float32)
  levels = [
    build_topology(level, texels_per_side=1, symmetric_texture=True)
    for level in range(min(_FIRST_LEVEL, topology.level), topology.level + 1)
  ]
  vertices = (middle + np.asarray(levels[0].sphere) * radii).astype(np.float32)
  for index, mesh in enumerate(levels):
    if index:
      vertices = refine(vertices, levels[index - 1], mesh)
    drawn = jax.jit(functools.partial(_drawn, topology=mesh, rate=_LEARNING_RATE / 2**index))
    half = np.asarray(drawn(halve(vertices, num_center=mesh.num_center), jnp.asarray(mirrored)))
    vertices = np.asarray(symmetrize(half, num_center=mesh.num_center))
  return half


def _drawn(
  half: Float[Array, "Vh 3"], points: Float[Array, "N 6"], *, topology: Topology, rate: float
) -> Float[Array, "Vh 3"]:
  faces, edges, center = topology.outward_faces, topology.edges, topology.num_center

  def loss_of(half: Array, stiff: Float[Array, ""]) -> Array:
    vertices = symmetrize(half, num_center=center)
    corners = vertices[faces]
    places = jnp.einsum("kc,fcd->fkd", jnp.asarray(_ON_FACE), corners)
    normals = jnp.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= jnp.sqrt(jnp.sum(normals**2, axis=-1, keepdims=True) + 1e-12)
    turned = jnp.broadcast_to(_TURNED * normals[:, None], places.shape)
    own = jnp.concatenate([places, turned], axis=-1).reshape(-1, 6)
    squared = jnp.sum(points**2, axis=1)[:, None] + jnp.sum(own**2, axis=1)[None]
    squared -= 2.0 * points @ own.T
    chamfer = jnp.mean(jnp.min(squared, axis=0)) + jnp.mean(jnp.min(squared, axis=1))
    along = jnp.sum((vertices[edges[:, 0]] - vertices[edges[:, 1]]) ** 2, axis=-1)
    uneven = laplacian_loss(vertices, topology) / len(vertices)
    return chamfer + stiff * (_EDGE * jnp.mean(along) + _LAPLACIAN * uneven)

  optimizer = optax.adam(optax.cosine_decay_schedule(rate, _STEPS))

  def step(carry: tuple[Array, optax.OptState], stiff: Float[Array, ""]) -> tuple[tuple, None]:
    half, state = carry
    update, state = optimizer.update(jax.grad(loss_of)(half, stiff), state)
    half += update
    # The right side stays on the right.
    return (half.at[center:, 1].max(0.0), state), None

  stiff = jnp.maximum(1.0 - jnp.arange(_STEPS) / (_FADED * _STEPS), _LAST).astype(half.dtype)
  return jax.lax.scan(step, (half, optimizer.init(half)), stiff)[0][0]


def volume_canonical_uv(
  volume: Volume,
  half_vertices: Float[np.ndarray, "Vh 3"],
  topology: Topology,
  *,
  uv_height: int,
) -> Float[np.ndarray, "Hu Wu P1"]:
  """The parts of a volume where a template's surface lies; nothing on it is background."""
  opacity, parts = np.asarray(volume.opacity), np.asarray(volume.parts)
  blurred = ndimage.gaussian_filter(opacity[..., None] * parts, (_BLUR, _BLUR, _BLUR, 0))
  shares = blurred / np.maximum(blurred.sum(axis=-1, keepdims=True), 1e-12)
  vertices = np.asarray(symmetrize(half_vertices, num_center=topology.num_center))
  corners, weights = uv_corners(topology, uv_height)
  places = np.einsum("hwk,hwkc->chw", weights, vertices[corners])
  cells = 0.5 * len(opacity) * (places / HALF + 1.0) - 0.5
  found = [
    ndimage.map_coordinates(plane, cells, order=1, mode="nearest")
    for plane in np.moveaxis(shares, -1, 0)
  ]
  return np.stack([np.zeros(cells.shape[1:]), *found], axis=-1).astype(np.float32)
