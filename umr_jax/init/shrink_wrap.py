"""A template mesh around a visual hull: the sphere fitted to its largest component's surface."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from scipy import ndimage
from skimage import measure

from umr_jax.geometry.icosphere import refine
from umr_jax.geometry.symmetry import halve, symmetrize
from umr_jax.geometry.topology import build_topology
from umr_jax.geometry.uv import uv_corners
from umr_jax.init.visual_hull import HALF, Volume
from umr_jax.losses.shape import laplacian_loss
from umr_jax.types import Topology

# Coarse to fine: few vertices converge without folds, and finer levels start from their result.
_FIRST_LEVEL, _STEPS, _LEARNING_RATE = 1, 300, 0.02
# The regularisers' weight falls linearly from 1 to `_LAST` within this share of the steps.
_FADED, _LAST = 0.8, 0.05
_EDGE, _LAPLACIAN = 0.15, 0.3
_POINTS = 3000
# Barycentric samples of a face that are compared with the surface: near each corner, and central.
_ON_FACE = np.array([[4, 1, 1], [1, 4, 1], [1, 1, 4], [2, 2, 2]], np.float32) / 6.0
# Weight of normals beside positions in the Chamfer distance: opposite normals are as far apart as
# points at twice this distance. Without it, the wrong side of the sphere covered thin parts.
_NORMAL = 0.2
# Blur in voxels: of the parts, so that every voxel of the surface has some, and of the opacity,
# whose gradient is the surface normal.
_BLUR = 1.0


def surface_points(
  opacity: Float[np.ndarray, "R R R"], *, level: float
) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"]]:
  """Points on the surface of the largest connected component, and their outward normals.

  Args:
    opacity: of the voxels, along x, y, z.
    level: the opacity of the surface.

  Returns:
    Points in object space (the vertices of marching cubes), and unit normals from the gradient of
    the blurred opacity.

  Raises:
    ValueError: if no voxel has that opacity.
  """
  # By corners, too: a thin wing or tail that runs across the grid has voxels in no other contact.
  labels, count = ndimage.label(opacity > level, np.ones((3, 3, 3)))
  if not count:
    raise ValueError("the silhouettes agree on no solid: start from geometry.init='silhouettes'")
  largest = 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
  # Other components are removed: their voxels become empty.
  one = np.where((labels == largest) | (labels == 0), opacity, 0.0)
  # The padding closes the surface at the cube's sides, and moves voxel indices by one.
  padded = np.pad(one - level, 1, constant_values=-level)
  vertices, *_ = measure.marching_cubes(padded, 0.0)
  voxels = vertices.astype(np.float64) - 1.0
  gradient = np.gradient(-ndimage.gaussian_filter(opacity, _BLUR))
  outward = np.stack(
    [ndimage.map_coordinates(along, voxels.T, order=1, mode="nearest") for along in gradient],
    axis=-1,
  )
  outward /= np.maximum(np.linalg.norm(outward, axis=-1, keepdims=True), 1e-12)
  # Voxel i covers [i, i + 1] / R of the cube.
  return HALF * ((2.0 * voxels + 1.0) / opacity.shape[0] - 1.0), outward


def shrink_wrap(
  points: Float[np.ndarray, "N 3"], outward: Float[np.ndarray, "N 3"], topology: Topology
) -> Float[np.ndarray, "Vh 3"]:
  """Fits the sphere's mesh to points of a symmetric surface by gradient descent.

  The mesh starts as the ellipsoid that fills their bounding box, and minimises the symmetric
  Chamfer distance of positions and normals, with edge length and Laplacian regularisers whose
  weight decreases.

  Args:
    points: of the surface.
    outward: unit normals at the points.
    topology: of the mesh.

  Returns:
    float32 half vertices.
  """
  low, high = points.min(axis=0), points.max(axis=0)
  wide = np.abs(points[:, 1]).max()
  middle, radii = 0.5 * (low + high) * [1, 0, 1], [0.5, 0, 0.5] * (high - low) + [0, wide, 0]
  subsample = np.linspace(0, len(points) - 1, min(len(points), _POINTS)).astype(int)
  chosen = np.concatenate([points[subsample], _NORMAL * outward[subsample]], axis=1)
  targets = np.asarray(_on_right(jnp.asarray(chosen, jnp.float32)))
  levels = [
    build_topology(level, texels_per_side=1, symmetric_texture=True)
    for level in range(min(_FIRST_LEVEL, topology.level), topology.level + 1)
  ]
  vertices = (middle + np.asarray(levels[0].sphere) * radii).astype(np.float32)
  for index, mesh in enumerate(levels):
    if index:
      vertices = refine(vertices, levels[index - 1], mesh)
    fitted = jax.jit(functools.partial(_fit_mesh, topology=mesh, rate=_LEARNING_RATE / 2**index))
    half = np.asarray(fitted(halve(vertices, num_center=mesh.num_center), jnp.asarray(targets)))
    vertices = np.asarray(symmetrize(half, num_center=mesh.num_center))
  return half


def _on_right(points: Float[Array, "N 6"]) -> Float[Array, "N 6"]:
  """Positions and normals, those left of the mirror plane mirrored: half of a symmetric surface."""
  mirror = jnp.array([[1.0, -1.0, 1.0, 1.0, -1.0, 1.0]], points.dtype)
  return jnp.where(points[:, 1:2] < 0.0, mirror * points, points)


def _fit_mesh(
  half: Float[Array, "Vh 3"], points: Float[Array, "N 6"], *, topology: Topology, rate: float
) -> Float[Array, "Vh 3"]:
  edges, center, own_mirror = topology.edges, topology.num_center, topology.num_self_faces
  # Of a face and its mirror image one is compared, which counts twice.
  faces = topology.outward_faces[: (len(topology.faces) + own_mirror) // 2]
  counts = np.repeat(np.where(np.arange(len(faces)) < own_mirror, 1.0, 2.0), len(_ON_FACE))
  shares = jnp.asarray(counts / counts.sum(), half.dtype)

  def loss_of(half: Array, stiff: Float[Array, ""]) -> Array:
    vertices = symmetrize(half, num_center=center)
    corners = vertices[faces]
    positions = jnp.einsum("kc,fcd->fkd", jnp.asarray(_ON_FACE), corners)
    normals = jnp.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= jnp.sqrt(jnp.sum(normals**2, axis=-1, keepdims=True) + 1e-12)
    direction = jnp.broadcast_to(_NORMAL * normals[:, None], positions.shape)
    own = _on_right(jnp.concatenate([positions, direction], axis=-1).reshape(-1, 6))
    squared = jnp.sum(points**2, axis=1)[:, None] + jnp.sum(own**2, axis=1)[None]
    squared -= 2.0 * points @ own.T
    chamfer = jnp.sum(shares * jnp.min(squared, axis=0)) + jnp.mean(jnp.min(squared, axis=1))
    edge_lengths = jnp.sum((vertices[edges[:, 0]] - vertices[edges[:, 1]]) ** 2, axis=-1)
    laplacian = laplacian_loss(vertices, topology) / len(vertices)
    return chamfer + stiff * (_EDGE * jnp.mean(edge_lengths) + _LAPLACIAN * laplacian)

  optimizer = optax.adam(optax.cosine_decay_schedule(rate, _STEPS))

  def step(carry: tuple[Array, optax.OptState], stiff: Float[Array, ""]) -> tuple[tuple, None]:
    half, state = carry
    update, state = optimizer.update(jax.grad(loss_of)(half, stiff), state)
    half += update
    # The right half stays right of the mirror plane.
    return (half.at[center:, 1].max(0.0), state), None

  stiff = jnp.maximum(1.0 - jnp.arange(_STEPS) / (_FADED * _STEPS), _LAST).astype(half.dtype)
  return jax.lax.scan(step, (half, optimizer.init(half)), stiff)[0][0]


def hull_canonical_uv(
  volume: Volume,
  half_vertices: Float[np.ndarray, "Vh 3"],
  topology: Topology,
  *,
  uv_height: int,
) -> Float[np.ndarray, "Hu Wu P1"]:
  """The parts of a visual hull at the template's surface; nothing on it is background.

  Args:
    volume: the visual hull.
    half_vertices: of the template.
    topology: of its mesh.
    uv_height: rows of the canonical map.
  """
  opacity, parts = np.asarray(volume.opacity), np.asarray(volume.parts)
  blurred = ndimage.gaussian_filter(opacity[..., None] * parts, (_BLUR, _BLUR, _BLUR, 0))
  shares = blurred / np.maximum(blurred.sum(axis=-1, keepdims=True), 1e-12)
  vertices = np.asarray(symmetrize(half_vertices, num_center=topology.num_center))
  corners, weights = uv_corners(topology, uv_height)
  places = np.einsum("hwk,hwkc->chw", weights, vertices[corners])
  voxels = 0.5 * len(opacity) * (places / HALF + 1.0) - 0.5
  found = [
    ndimage.map_coordinates(plane, voxels, order=1, mode="nearest")
    for plane in np.moveaxis(shares, -1, 0)
  ]
  return np.stack([np.zeros(voxels.shape[1:]), *found], axis=-1).astype(np.float32)
