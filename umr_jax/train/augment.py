"""Augmentation of training images on the device: colours, backgrounds, rotation and stretch.

A network overfits a few hundred images without it.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from umr_jax.geometry import quaternion
from umr_jax.geometry.camera import Camera
from umr_jax.geometry.sampling import affine_sample
from umr_jax.random import per_image_keys
from umr_jax.types import Batch, checked

# Of red, green and blue in what the eye takes for brightness (ITU-R BT.601).
_LUMA = (0.299, 0.587, 0.114)


# Around an object, pixels that go with it.
_RIM = 3
# Rows and columns of the maps that fill in for an object, and how much the coarser one counts.
_FILLINGS = (1, 2, 4, 8)
_COARSER = 0.05


class Strengths(NamedTuple):
  """How much training images change: `color_jitter`, `rotate_and_stretch`, `swap_backgrounds`."""

  color: float = 0.0
  background: float = 0.0  # the share of images
  rotation: float = 0.0  # degrees to either side
  stretch: float = 0.0


UNCHANGED = Strengths()


@checked
def color_jitter(
  images: Float[Array, "B H W 3"], index: Int[Array, "B"], key: PRNGKeyArray, strength: float
) -> Float[Array, "B H W 3"]:
  """Random gains of the colour channels, contrast and saturation.

  They are the network's input alone: the texture is compared with the image as it is.

  Args:
    images: RGB in [0, 1].
    index: of each image in the data set; its sample does not depend on the rest of the batch.
    key: of the step.
    strength: every factor is exp(u) with u uniform in [-strength, strength].

  Returns:
    RGB in [0, 1].
  """
  factors = jnp.exp(strength * uniform_per_image(index, key, 5))[:, None, None, :]
  gains, contrast, saturation = factors[..., :3], factors[..., 3:4], factors[..., 4:]
  grey = jnp.sum(images * jnp.array(_LUMA).reshape(1, 1, 1, 3), axis=-1, keepdims=True)
  images = grey + saturation * (images - grey)
  mean = jnp.mean(images, axis=(1, 2), keepdims=True)
  return jnp.clip((mean + contrast * (images - mean)) * gains, 0.0, 1.0)


@checked
def rotate_and_stretch(
  batch: Batch, key: PRNGKeyArray, *, rotation: float, stretch: float
) -> Batch:
  """The same objects turned in the image plane, and longer or taller.

  Image, silhouette, barrier, part map and target camera move together, about the centre of the
  crop. What comes in from outside of it is white, outside of the silhouette, beyond the barrier and
  background, as in `data.transforms`.

  Args:
    batch: square crops.
    key: of the step; an image's sample does not depend on the rest of the batch.
    rotation: the largest turn to either side, in degrees.
    stretch: the width grows by exp(u) and the height shrinks by as much, with u uniform in
      [-stretch, stretch].
  """
  sampled = uniform_per_image(batch.index, key, 2)
  angle, growth = math.radians(rotation) * sampled[:, 0], jnp.exp(stretch * sampled[:, 1])
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  # From a position in the new image to the one in the old image that it shows.
  still = jnp.zeros_like(angle)
  rows = [[cos / growth, sin / growth, still], [-sin * growth, cos * growth, still]]
  matrix = jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)
  # Outside, a look-up gives zero: what is to be one there goes through it as one's complement.
  layers = [1.0 - batch.image, 1.0 - batch.barrier[..., None], batch.mask[..., None]]
  if batch.parts is not None:
    layers.append(batch.parts[..., 1:])
  moved = affine_sample(jnp.concatenate(layers, axis=-1), matrix)
  parts = None
  if batch.parts is not None:
    # An image may lack its map.
    known = jnp.any(batch.parts > 0.0, axis=(1, 2, 3), keepdims=True).astype(moved.dtype)
    shown = moved[..., 5:]
    background = known * (1.0 - jnp.sum(shown, axis=-1, keepdims=True))
    parts = jnp.concatenate([background, shown], axis=-1)
  target_camera = batch.target_camera
  if target_camera is not None:
    target_camera = _rotated_camera(target_camera, angle)
  return dataclasses.replace(
    batch,
    target_camera=target_camera,
    image=1.0 - moved[..., :3],
    barrier=1.0 - moved[..., 3],
    mask=moved[..., 4],
    parts=parts,
  )


def _rotated_camera(cameras: Float[Array, "B 7"], angle: Float[Array, "B"]) -> Float[Array, "B 7"]:
  """Cameras of images that were rotated by an angle in radians about their centres.

  Stretching has no weak-perspective camera: it is left out.
  """
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  zero = jnp.zeros_like(angle)
  turn = jnp.stack([jnp.cos(0.5 * angle), zero, zero, jnp.sin(0.5 * angle)], axis=-1)
  before = Camera.unpack(cameras)
  tx, ty = before.translation[:, 0], before.translation[:, 1]
  return Camera(
    scale=before.scale,
    translation=jnp.stack([cos * tx - sin * ty, sin * tx + cos * ty], axis=-1),
    quaternion=quaternion.multiply(turn, before.quaternion),
  ).pack()


@checked
def swap_backgrounds(
  images: Float[Array, "B H W 3"],
  masks: Float[Array, "B H W"],
  index: Int[Array, "B"],
  key: PRNGKeyArray,
  *,
  share: float,
) -> Float[Array, "B H W 3"]:
  """Objects in front of the background of the image before them in the batch.

  A background identifies an image that occurs a hundred times; before another one, the object has
  to be recognised. Where the other object was, its surroundings continue, blurred.

  Args:
    images: RGB in [0, 1]; the result is for the network's input alone.
    masks: of the objects.
    index: of each image in the data set. Its sample does not depend on the rest of the batch, its
      new background does.
    key: of the step.
    share: of the images that change.

  Raises:
    ValueError: for a single image, which has no other.

  Source: Ghiasi et al. 2021 ("Simple Copy-Paste"), of whom the pasting is; the filling is ours.
  """
  if images.shape[0] < 2:
    raise ValueError(
      "found one image on a device; data.background needs a larger train.batch_size, or to be 0"
    )
  cover = masks[..., None]
  # A rim of the object beside its mask would reveal where it was.
  window = (1, 2 * _RIM + 1, 2 * _RIM + 1, 1)
  gone = jax.lax.reduce_window(cover, -jnp.inf, jax.lax.max, window, (1, 1, 1, 1), "SAME")
  empty = gone * _continued(images, 1.0 - gone) + (1.0 - gone) * images
  other = jnp.roll(empty, 1, axis=0)
  moved = cover * images + (1.0 - cover) * other
  chosen = uniform_per_image(index, key, 1) < 2.0 * share - 1.0
  return jnp.where(chosen[..., None, None], moved, images)


def _continued(
  images: Float[Array, "B H W 3"], known: Float[Array, "B H W 1"]
) -> Float[Array, "B H W 3"]:
  """Blurred images of what is known; where nothing is, the surroundings continue."""
  batch, height, width, _ = images.shape
  filled = jnp.full((batch, 1, 1, 3), 0.5)
  for size in _FILLINGS:
    coarser = _COARSER * jax.image.resize(filled, (batch, size, size, 3), "linear")
    weight = jax.image.resize(known, (batch, size, size, 1), "linear")
    filled = jax.image.resize(images * known, (batch, size, size, 3), "linear") + coarser
    filled /= weight + _COARSER
  return jax.image.resize(filled, (batch, height, width, 3), "linear")


def augmented(
  batch: Batch, key: PRNGKeyArray, strengths: Strengths
) -> tuple[Batch, Float[Array, "B H W 3"]]:
  """The batch of a step, and the images that are the network's input.

  Args:
    batch: one device's rows.
    key: of the step.
    strengths: how much images change.
  """
  color_key, affine_key, background_key = jax.random.split(key, 3)
  if strengths.rotation or strengths.stretch:
    batch = rotate_and_stretch(
      batch, affine_key, rotation=strengths.rotation, stretch=strengths.stretch
    )
  images = batch.image
  if strengths.background:
    images = swap_backgrounds(
      images, batch.mask, batch.index, background_key, share=strengths.background
    )
  if strengths.color:
    images = color_jitter(images, batch.index, color_key, strengths.color)
  return batch, images


def uniform_per_image(index: Int[Array, "B"], key: PRNGKeyArray, count: int) -> Float[Array, "B N"]:
  """Uniform numbers in [-1, 1] for each image of the data set, under its own key.

  Args:
    index: of each image in the data set; its sample does not depend on the rest of the batch.
    key: of the step, and of what is sampled.
    count: numbers for each image.
  """
  keys = per_image_keys(key, index)
  return jax.vmap(lambda k: jax.random.uniform(k, (count,), minval=-1.0, maxval=1.0))(keys)
