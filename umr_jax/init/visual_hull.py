"""A soft visual hull of the category: a voxel grid of opacities and parts, fitted to silhouettes.

The gradient of a soft silhouette reaches only faces near the outline, so that a mesh grows no wing
where there is none. The opacities of a voxel grid have no such restriction: under roughly known
cameras a few dozen gradient steps find those that explain the silhouettes of all images at once.

Source: Tulsiani et al. 2017, "Multi-view Supervision for Single-view Reconstruction via
  Differentiable Ray Consistency" (opacities along rays). Departs: one voxel grid for a
  whole category.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Float, Int

from umr_jax.geometry import camera, quaternion
from umr_jax.geometry.sampling import (
  axis_centers,
  bilinear_sample,
  pixel_centers,
  trilinear_sample,
)
from umr_jax.init.pose_search import FRAME, MEASURED, Views
from umr_jax.init.voxel_template import HALF, view_maps, voxel_centers
from umr_jax.models.camera_heads import upright_rotation
from umr_jax.models.framed_images import HALF_FRAME, center_and_side, places_in_frame
from umr_jax.progress import tracked
from umr_jax.types import checked

# Voxels per side.
RESOLUTION = 40
# Samples along each ray, between these depths of a camera of scale 1: about a voxel apart.
_SAMPLES, _DEPTH = 40, 1.3
# The largest opacity: the logarithm of full opacity is infinite.
_OPAQUE = 0.999
# The initial logit of every voxel: nearly empty.
_EMPTY = -3.0
# Images of a step, and steps that one program takes.
FIT_BATCH, FIT_PIECE, _LEARNING_RATE = 32, 20, 0.15
# By how much a step moves a camera at most: scale, image units, or half radians.
_CAMERA_STEP = 0.02
# A part that covers less than this many pixels counts as not visible.
_LEAST = 2.0
# A pixel belongs to the silhouette from this probability on.
_STOPPED = 0.5
# Opacities that are tried as the object's surface.
_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)


@struct.dataclass
class Volume:
  """Voxels of a cube about the origin of object space, symmetric in y = 0."""

  opacity: Float[Array, "R R R"]  # along x, y, z; the share of light that a voxel absorbs
  parts: Float[Array, "R R R P"]  # probabilities; none of the background, and P = 0 without parts


def empty_logits(parts: int) -> Float[Array, "R R R P1"]:
  """The logits from which a fit starts: nearly empty, with `parts` equal part probabilities."""
  grid = (RESOLUTION, RESOLUTION, RESOLUTION)
  return jnp.concatenate([jnp.full((*grid, 1), _EMPTY), jnp.zeros((*grid, parts))], axis=-1)


def volume_from_logits(logits: Float[Array, "R R R P1"]) -> Volume:
  """The symmetric visual hull of unbounded logits: opacity first, then the parts."""
  both = 0.5 * (logits + logits[:, ::-1])
  return Volume(_OPAQUE * jax.nn.sigmoid(both[..., 0]), jax.nn.softmax(both[..., 1:], axis=-1))


@checked
def render_volume(
  volume: Volume, cameras: Float[Array, "B 7"], *, size: int
) -> tuple[Float[Array, "B S S"], Float[Array, "B S S P"]]:
  """Renders silhouettes and parts of a visual hull by absorption along rays.

  Args:
    volume: the voxels.
    cameras: one for each render.
    size: pixels per side.

  Returns:
    The probability that a ray is absorbed, and that it is absorbed by each part.
  """
  values = jnp.concatenate([-jnp.log1p(-volume.opacity)[..., None], volume.parts], axis=-1)
  pixels = pixel_centers(size, size)[:, :, None]
  depth = jnp.asarray(_DEPTH * axis_centers(_SAMPLES), jnp.float32)
  depth = jnp.broadcast_to(depth[:, None], (size, size, _SAMPLES, 1))

  def render(view: Float[Array, "7"]) -> tuple[Array, Array]:
    placed = camera.Camera.unpack(view)
    flat = (pixels - placed.translation[None, None, None]) / placed.scale
    place = jnp.concatenate([jnp.broadcast_to(flat, (*depth.shape[:3], 2)), depth], axis=-1)
    # Rows times R are R^T applied to columns: from the camera's frame to the object's.
    read = trilinear_sample(values, place @ camera.rotation(view) / HALF)
    before = jnp.cumsum(read[..., 0], axis=-1) - read[..., 0]
    stopped = jnp.exp(-before) * -jnp.expm1(-read[..., 0])
    return jnp.sum(stopped, axis=-1), jnp.einsum("hwn,hwnp->hwp", stopped, read[..., 1:])

  return jax.vmap(render)(cameras)


@checked
def overlap_loss(
  volume: Volume,
  cameras: Float[Array, "B 7"],
  masks: Float[Array, "B S S"],
  parts: Float[Array, "B S S P"],
) -> tuple[Float[Array, ""], Float[Array, "2"]]:
  """One minus the IoU of silhouettes, and one minus that of the parts that the images show.

  Args:
    volume: the hull, with its parts.
    cameras: of the images.
    masks: the images' silhouettes.
    parts: their part maps, without the background; P is 0 where there are none.

  Returns:
    The sum of both; and both IoU, the second 0 without parts.
  """
  alpha, rendered = render_volume(volume, cameras, size=masks.shape[-1])
  both = jnp.sum(alpha * masks, axis=(1, 2))
  outline = jnp.mean(both / (jnp.sum(alpha + masks, axis=(1, 2)) - both))
  shown = (jnp.sum(parts, axis=(1, 2)) > _LEAST).astype(parts.dtype)
  least, most = (jnp.sum(pick(rendered, parts), axis=(1, 2)) for pick in (jnp.minimum, jnp.maximum))
  inner = jnp.sum(shown * least / jnp.maximum(most, 1e-6)) / jnp.maximum(jnp.sum(shown), 1.0)
  loss = 1.0 - outline + (1.0 - inner if parts.shape[-1] else 0.0)
  return loss, jnp.stack([outline, inner])


def batch_rows(count: int, *, key: Array, steps: int) -> Int[Array, "steps B"]:
  """The images of each step's batch, no image twice: a step moves a camera once.

  A permutation is cut into whole batches. What is left of it is too few for another one.

  Args:
    count: the number of images.
    key: of the permutations.
    steps: the number of batches.
  """
  size = min(FIT_BATCH, count)
  whole = count // size
  order = [
    jax.random.permutation(k, count)[: whole * size].reshape(whole, size)
    for k in jax.random.split(key, 1 + steps // whole)
  ]
  return jnp.concatenate(order)[:steps]


def fit_volume(
  logits: Float[Array, "R R R P1"],
  cameras: Float[Array, "N 7"],
  masks: Float[Array, "N S S"],
  parts: Float[Array, "N S S P"],
  *,
  cost: Float[Array, "R R R"],
  key: Array,
  steps: int,
) -> tuple[Float[Array, "R R R P1"], Float[Array, "N 7"], Float[Array, "2"]]:
  """Fits a visual hull to images, and the images' cameras to the hull.

  Thin structures survive only where many cameras agree to a fraction of a voxel: with the
  cameras of pose search alone, wings are reconstructed too short.

  Args:
    logits: initial; see `volume_from_logits`.
    cameras: of the images; correct to about ten degrees.
    masks: silhouettes.
    parts: part maps without background, zero outside of the silhouette.
    cost: added to the loss per unit of a voxel's opacity.
    key: of the order of batches.
    steps: of Adam; each moves the cameras of its batch, too.

  Returns:
    The new logits and cameras, and the mean IoU of silhouettes and of parts over the last quarter
    of the steps.
  """
  rows = batch_rows(len(cameras), key=key, steps=steps)
  # A program runs to its end: in pieces, one can be told how far it is, and stop it.
  starts = range(0, steps, FIT_PIECE)
  fitted = logits, cameras, optax.adam(_LEARNING_RATE).init(logits)
  overlaps = []
  for start in tracked(starts, "visual hull, steps", total=steps, step=FIT_PIECE):
    fitted, overlap = _fit_steps(fitted, rows[start : start + FIT_PIECE], masks, parts, cost)
    overlaps.append(jax.block_until_ready(overlap))
  logits, cameras, _ = fitted
  return logits, cameras, jnp.mean(jnp.concatenate(overlaps)[-max(1, steps // 4) :], axis=0)


@jax.jit
def _fit_steps(
  begin: tuple[Array, Array, optax.OptState],
  rows: Int[Array, "steps B"],
  masks: Float[Array, "N S S"],
  parts: Float[Array, "N S S P"],
  cost: Float[Array, "R R R"],
) -> tuple[tuple[Array, Array, optax.OptState], Float[Array, "steps 2"]]:
  """Steps of `fit_volume` with these batches: logits, cameras and optimizer, and both IoU."""
  optimizer = optax.adam(_LEARNING_RATE)

  def loss_of(state: tuple[Array, Array], row: Int[Array, "B"]) -> tuple[Array, Array]:
    volume = volume_from_logits(state[0])
    loss, overlaps = overlap_loss(volume, state[1], masks[row], parts[row])
    return loss + jnp.sum(cost * volume.opacity), overlaps

  def step(carry: tuple[Array, Array, optax.OptState], row: Int[Array, "B"]) -> tuple[tuple, Array]:
    logits, cameras, state = carry
    given = cameras[row]
    (gradient, camera_gradient), overlap = jax.grad(loss_of, has_aux=True)((logits, given), row)
    update, state = optimizer.update(gradient, state)
    # The loss is a mean over the batch: a camera's own loss has as many times that gradient.
    camera_gradient = len(row) * camera_gradient
    norm = jnp.linalg.norm(camera_gradient, axis=-1, keepdims=True)
    camera_gradient /= jnp.maximum(norm, 1.0)
    moved = given - _CAMERA_STEP * camera_gradient
    view = camera.Camera.unpack(moved)
    moved = camera.Camera(
      jnp.maximum(view.scale, 0.1), view.translation, quaternion.normalize(view.quaternion)
    ).pack()
    return (logits + update, cameras.at[row].set(moved), state), overlap

  return jax.lax.scan(step, begin, rows)


@jax.jit
def volume_views(volume: Volume, rotations: Float[Array, "K 4"]) -> Views:
  """Renders a visual hull in every view, for `pose_search.score_views`.

  Args:
    volume: the voxels.
    rotations: quaternions of the views.
  """
  parted = volume.parts.shape[-1] > 0

  def render_view(rotation: Float[Array, "4"]) -> tuple[Array, Array, Array]:
    whole = camera.Camera(jnp.float32(1.0 / HALF), jnp.zeros(2), rotation).pack()
    alpha, _ = render_volume(volume, whole[None], size=MEASURED)
    center, side = center_and_side((alpha > _STOPPED).astype(jnp.float32))
    center, side = HALF * center[0], HALF * side[0]
    scale = 1.0 / (HALF_FRAME * jnp.maximum(side, 1e-3))
    close = camera.Camera(scale, -scale * center, rotation).pack()
    alpha, rendered = render_volume(volume, close[None], size=FRAME)
    part = jnp.argmax(rendered[0], axis=-1) + 1 if parted else jnp.zeros(alpha.shape[1:], jnp.int32)
    return jnp.where(alpha[0] > _STOPPED, part, -1).astype(jnp.int8), center, side

  labels, centers, sides = jax.lax.map(render_view, rotations)
  return Views(labels, centers, sides, rotations, parted=parted)


@jax.jit
def filled(opacity: Float[Array, "R R R"], *, level: Float[Array, ""]) -> Float[Array, "R R R"]:
  """The volume with opaque voxels wherever no silhouette can tell that there are none.

  Silhouettes leave a fitted volume hollow, and open where no view looks along its surface.

  Args:
    opacity: of a fitted volume.
    level: the opacity of its surface.
  """
  resolution = len(opacity)
  around, heights = np.meshgrid(np.arange(0.0, 180.0, 15.0), np.arange(-75.0, 90.0, 15.0))
  angles = [jnp.asarray(a.ravel(), jnp.float32) for a in (around, heights, 0.0 * around)]
  views = upright_rotation(*angles)
  maps = view_maps(opacity > level, views, size=2 * resolution)
  shown = (maps.voxels >= 0).astype(opacity.dtype)[..., None]
  centers = jnp.asarray(voxel_centers(resolution).reshape(-1, 3))

  def carve_view(inside: Array, view: tuple[Array, ...]) -> tuple[Array, None]:
    rotation, center, side, silhouette = view
    place = places_in_frame(centers, rotation, center, side)
    return inside & (bilinear_sample(silhouette, place)[:, 0] > 0.5), None

  everywhere = jnp.ones(len(centers), bool)
  inside, _ = jax.lax.scan(carve_view, everywhere, (views, maps.centers, maps.sides, shown))
  return jnp.where(inside.reshape(opacity.shape), 1.0, opacity)


def surface_level(
  volume: Volume,
  cameras: Float[Array | np.ndarray, "N 7"],
  masks: Float[Array | np.ndarray, "N S S"],
) -> float:
  """The opacity threshold at which the hull's silhouettes fit the images best.

  Args:
    volume: the voxels.
    cameras: of the images.
    masks: silhouettes of the images.
  """
  nothing = jnp.zeros((*masks.shape, 0))
  bare = Volume(volume.opacity, volume.parts[..., :0])

  @jax.jit
  def outline(level: Float[Array, ""]) -> Array:
    solid = Volume(_OPAQUE * (bare.opacity > level).astype(jnp.float32), bare.parts)
    return overlap_loss(solid, jnp.asarray(cameras), jnp.asarray(masks), nothing)[1][0]

  return max(_LEVELS, key=lambda level: float(outline(jnp.float32(level))))
