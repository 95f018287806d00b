"""A category's template as voxels that carry features, and how it looks from every view.

A view shows, at each pixel, the first occupied voxel on the ray: an integer map, made once for a
shape. Rendering features is a look-up in it, and the features that explain images best are sums
over it, in closed form.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from umr_jax.geometry import quaternion
from umr_jax.geometry.sampling import (
  axis_centers,
  bilinear_sample,
  pixel_centers,
  trilinear_sample,
)
from umr_jax.models.framed_images import HALF_FRAME, places_in_frame
from umr_jax.types import checked

# Half the cube's side in object space: the longest half axis is nearly 1.
HALF = 1.25
# The depth that samples along a ray reach, and how many there are to a voxel.
_DEPTH, _DENSITY = 1.05 * HALF, 4 / 3
# Views are rendered so many at a time.
_VIEWS = 16
# Pixels per side, and times, of the renders that place a view's frame at its silhouette.
_CENTERED_SIZE, _CENTERINGS = 24, 2
# Standard deviations, in 24ths of the cube, of the blurs of features and of votes.
_FEATURE_BLUR, _VOTE_BLUR = 1.0, 0.6
# A silhouette's share of images below this counts as this much: one view alone does not decide.
_LEAST_SHARE = 0.05
# What a voxel's vote loses per unit of distance from the mirror plane where every image tells how
# wide the object is; more where fewer do, up to this share of them.
_WIDTH_COST, _LEAST_TOLD = 0.1, 0.01
# Thresholds that are tried as the template's surface, as shares of the cube that they fill.
_VOLUMES = np.geomspace(0.012, 0.25, 12)
# How many views vote, and on how many of them the thresholds are judged: those with most images.
_VOTING, _JUDGED = 256, 24
# The longest half axis of the template, and by how much it or the middle (in 24ths of the cube) may
# differ before the template is moved and scaled.
_LONGEST, _TOLERANCE, _MISPLACED = 0.95, 0.08, 0.6
# A shape that fills less of the cube is none.
_LEAST_VOLUME = 0.002


@struct.dataclass
class VoxelTemplate:
  """Occupied voxels, symmetric in y = 0, and a feature vector of each."""

  occupied: Bool[Array, "R R R"]  # along x, y, z
  features: Float[Array, "R R R C"]

  @property
  def resolution(self) -> int:
    """R, voxels per side."""
    return self.occupied.shape[0]


@struct.dataclass
class ViewMaps:
  """What a shape shows under each view, in the frame around its silhouette."""

  voxels: Int[Array, "K S S"]  # the first occupied voxel of each pixel's ray, or -1
  centers: Float[Array, "K 2"]  # of mass, under a camera of scale 1 at the centre
  sides: Float[Array, "K"]  # square roots of the silhouettes' areas, likewise


def voxel_centers(resolution: int) -> Float[np.ndarray, "R R R 3"]:
  """The centres of all voxels in object space."""
  axis = (HALF * axis_centers(resolution)).astype(np.float32)
  return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)


def ellipsoid(half_axes: tuple[float, float, float], resolution: int) -> Bool[Array, "R R R"]:
  """The voxels of an ellipsoid.

  Args:
    half_axes: along x, y, z.
    resolution: voxels per side.
  """
  scaled = voxel_centers(resolution) / np.array(half_axes, np.float32)
  return jnp.asarray((scaled**2).sum(axis=-1) < 1.0)


def upsampled(template: VoxelTemplate, resolution: int) -> VoxelTemplate:
  """The template on a finer grid.

  Args:
    template: on a coarser one.
    resolution: voxels per side.
  """
  shape = (resolution,) * 3
  occupied = jax.image.resize(template.occupied.astype(jnp.float32), shape, "linear") > 0.5
  features = jax.image.resize(template.features, (*shape, template.features.shape[-1]), "linear")
  return VoxelTemplate(occupied, features)


@functools.partial(jax.jit, static_argnames="size")
@checked
def view_maps(
  occupied: Bool[Array, "R R R"], rotations: Float[Array, "K 4"], *, size: int
) -> ViewMaps:
  """The first occupied voxel at every pixel, under every view.

  Args:
    occupied: the shape.
    rotations: quaternions of the views.
    size: pixels per side.
  """
  flat, resolution = occupied.ravel(), occupied.shape[0]
  samples = round(_DENSITY * resolution)

  def first_hits(matrix: Array, center: Array, half: Array, size: int) -> Array:
    """The first occupied voxel of every pixel's ray, or -1."""
    pixels = center[None, None] + half * jnp.asarray(pixel_centers(size, size))
    # Rows times R are R^T applied to columns: from the camera's frame to the object's.
    start, along = pixels @ matrix[:2], matrix[2]

    def march(i: Array, found: Array) -> Array:
      depth = _DEPTH * ((2.0 * i + 1.0) / samples - 1.0)
      place = (start + depth * along[None, None]) * (0.5 * resolution / HALF) + 0.5 * resolution
      cell = jnp.floor(place).astype(jnp.int32)
      inside = jnp.all((cell >= 0) & (cell < resolution), axis=-1)
      index = (cell[..., 0] * resolution + cell[..., 1]) * resolution + cell[..., 2]
      hit = inside & jnp.take(flat, index, mode="clip")
      return jnp.where((found < 0) & hit, index, found)

    return jax.lax.fori_loop(0, samples, march, jnp.full((size, size), -1, jnp.int32))

  def of_view(rotation: Float[Array, "4"]) -> tuple[Array, Array, Array]:
    matrix = quaternion.to_matrix(rotation)
    center, half, side = jnp.zeros(2), jnp.float32(HALF), jnp.float32(1.0)
    for _ in range(_CENTERINGS):
      shown = (first_hits(matrix, center, half, _CENTERED_SIZE) >= 0).astype(jnp.float32)
      mass = jnp.maximum(jnp.sum(shown), 1.0)
      offset = jnp.einsum("hw,hwc->c", shown, pixel_centers(_CENTERED_SIZE, _CENTERED_SIZE))
      center += half * offset / mass
      side = half * jnp.sqrt(mass) * (2.0 / _CENTERED_SIZE)
      half = HALF_FRAME * side
    return first_hits(matrix, center, half, size), center, side

  return ViewMaps(*jax.lax.map(of_view, rotations, batch_size=_VIEWS))


@checked
def sum_on_voxels(
  sums: Float[Array, "K S S C"], voxels: Int[Array, "K S S"], *, resolution: int
) -> Float[Array, "R R R C"]:
  """What all pixels that show a voxel have in sum, over all views.

  Args:
    sums: of the images of each view.
    voxels: of `ViewMaps`.
    resolution: voxels per side.
  """
  cells = resolution**3
  index = jnp.where(voxels < 0, cells, voxels).ravel()
  total = jax.ops.segment_sum(sums.reshape(len(index), -1), index, num_segments=cells + 1)
  return total[:-1].reshape(resolution, resolution, resolution, -1)


@checked
def fit_features(
  total: Float[Array, "R R R C1"], ridge: float | Float[Array, ""]
) -> Float[Array, "R R R C"]:
  """The symmetric, smooth features that explain the images best.

  Args:
    total: of the images' features at each voxel, and of their silhouettes last.
    ridge: added to the denominators: voxels that few images show have small features.
  """
  total = blurred(total + total[:, ::-1], _FEATURE_BLUR)
  return total[..., :-1] / (total[..., -1:] + ridge)


@jax.jit
@checked
def carve(
  occupied: Bool[Array, "R R R"],
  silhouettes: Float[Array, "K S S"],
  images: Float[Array, "K"],
  maps: ViewMaps,
  rotations: Float[Array, "K 4"],
) -> Bool[Array, "R R R"]:
  """The shape whose silhouettes are the images' mean silhouettes, as a soft visual hull.

  A voxel's vote is the mean over the images of the logarithm of the mean silhouette where it
  projects, less a cost of width where few images tell it. The threshold is the one whose
  silhouettes have the best IoU with the mean ones.

  Args:
    occupied: the present shape, kept where the silhouettes agree on none.
    silhouettes: the mean silhouette of the images of each view, in their frames.
    images: how many images have each view; fractions, too.
    maps: of the present shape: their frames place the silhouettes.
    rotations: quaternions of the views.

  Returns:
    The new shape, symmetric, its box's middle in the origin along x and z, its size normalized.
  """
  resolution, size = occupied.shape[0], silhouettes.shape[1]
  nothing = float(np.log(_LEAST_SHARE))
  centers = jnp.asarray(voxel_centers(resolution).reshape(-1, 3))
  voting = jax.lax.top_k(images, min(_VOTING, len(images)))[1]
  shares = images[voting] / jnp.sum(images[voting])
  logs = jnp.log(jnp.clip(silhouettes[voting], _LEAST_SHARE, 1.0)) - nothing

  def add_vote(total: Array, view: tuple[Array, ...]) -> tuple[Array, None]:
    share, rotation, center, side, log = view
    place = places_in_frame(centers, rotation, center, side)
    return total + share * (bilinear_sample(log[..., None], place)[:, 0] + nothing), None

  views = (shares, rotations[voting], maps.centers[voting], maps.sides[voting], logs)
  vote = jax.lax.scan(add_vote, jnp.zeros(len(centers)), views)[0].reshape((resolution,) * 3)
  vote = blurred(0.5 * (vote + vote[:, ::-1])[..., None], _VOTE_BLUR)
  vote -= _width_cost(images, rotations) * jnp.abs(voxel_centers(resolution)[..., 1:2])

  top = voting[:_JUDGED]
  mean = jnp.clip((silhouettes[top] - _LEAST_SHARE) / (1.0 - _LEAST_SHARE), 0.0, 1.0)

  def overlap(level: Array) -> Array:
    shown = view_maps(vote[..., 0] > level, rotations[top], size=size).voxels >= 0
    alpha = shown.astype(mean.dtype)
    least, most = (jnp.sum(pick(alpha, mean), axis=(1, 2)) for pick in (jnp.minimum, jnp.maximum))
    return jnp.sum(images[top] * least / jnp.maximum(most, 1e-6))

  levels = jnp.quantile(vote, jnp.asarray(1.0 - _VOLUMES, jnp.float32))
  shape = _normalized(vote, levels[jnp.argmax(jax.lax.map(overlap, levels))])
  return jnp.where(jnp.mean(shape) > _LEAST_VOLUME, shape, occupied)


def _width_cost(images: Float[Array, "K"], rotations: Float[Array, "K 4"]) -> Float[Array, ""]:
  # An image tells the width by the square of the length at which it shows the axis across.
  across = quaternion.to_matrix(rotations)[:, :2, 1]
  told = jnp.sum(images * jnp.sum(across**2, axis=1)) / jnp.sum(images)
  return _WIDTH_COST / jnp.maximum(told, _LEAST_TOLD)


def _normalized(vote: Float[Array, "R R R 1"], level: Array) -> Bool[Array, "R R R"]:
  """The voxels above a level, moved to the box's middle along x and z, and scaled."""
  centers = jnp.asarray(voxel_centers(len(vote)))
  above = vote > level
  low = jnp.min(jnp.where(above, centers, jnp.inf), axis=(0, 1, 2))
  high = jnp.max(jnp.where(above, centers, -jnp.inf), axis=(0, 1, 2))
  middle = 0.5 * (low + high) * jnp.asarray([1.0, 0.0, 1.0])
  scale = jnp.max(jnp.maximum(high - middle, middle - low)) / _LONGEST
  misplaced = jnp.any(jnp.abs(middle) > _MISPLACED * 2.0 * HALF / 24)
  changed = misplaced | (jnp.abs(scale - 1.0) > _TOLERANCE)
  # Beyond the cube a look-up gives zero, which is to be the lowest vote.
  lowest = jnp.min(vote)
  moved = scale * centers + middle.reshape(1, 1, 1, 3)
  place = jnp.where(changed, moved, centers) / HALF
  return trilinear_sample(vote - lowest, place)[..., 0] > level - lowest


def blurred(values: Float[Array, "R R R C"], deviation: float) -> Float[Array, "R R R C"]:
  """A Gaussian blur along the three axes, reflected at the sides.

  Args:
    values: on a voxel grid.
    deviation: in 24ths of the cube.
  """
  kernel = jnp.asarray(_blur_matrix(len(values), deviation * len(values) / 24))
  for _ in range(3):  # Each time the next axis comes first.
    values = jnp.einsum("ax,xyzk->yzak", kernel, values)
  return values


@functools.cache
def _blur_matrix(size: int, deviation: float) -> Float[np.ndarray, "R R"]:
  """A blur of one axis as a matrix; what leaves the axis is reflected into it."""
  reach = int(np.ceil(3.0 * deviation))
  matrix = np.zeros((size, size))
  for offset in range(-reach, reach + 1):
    at = np.arange(size) + offset
    at = np.where(at < 0, -at - 1, np.where(at >= size, 2 * size - 1 - at, at))
    np.add.at(matrix, (np.arange(size), at), np.exp(-0.5 * (offset / deviation) ** 2))
  return (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)
