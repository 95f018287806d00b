"""Random affine warps, to which parts are equivariant."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from umr_jax.geometry.sampling import affine_sample
from umr_jax.train.augment import uniform_per_image
from umr_jax.types import checked

# The logit of each part, over the background's, where a warp shows what no image shows.
_NOTHING = -10.0


class WarpRanges(NamedTuple):
  """How far warps go.

  Departs: Hung et al. 2019 turn by up to 60 degrees and scale by 0.7 to 2, which leaves a small
    network little of its steps; and mirror no image.
  """

  rotation: float = 30.0  # degrees to either side
  shift: float = 0.1  # of the image's size, along either axis to either side
  smallest: float = 0.8  # of the object, in the size that it had
  largest: float = 1.3
  mirror: float = 0.5  # the share of images


@checked
def draw_warps(
  index: Int[Array, "B"], key: PRNGKeyArray, ranges: WarpRanges
) -> Float[Array, "B 2 3"]:
  """Samples a warp for each image.

  Args:
    index: of each image in the data set; its warp does not depend on the rest of the batch.
    key: of the step.
    ranges: of rotation, shift and mirror, sampled uniformly; and of the size, whose logarithm is.

  Returns:
    Matrices from positions in the warped image to positions in the source image.

  Source: Hung et al. 2019 (SCOPS), section 3.3. Departs: no thin-plate part, whose published
    strength of 0.01 is a third of a pixel of the logits; images are also mirrored, so that what
    is left and what is right of an object get the same name.
  """
  sampled = uniform_per_image(index, key, 5)
  angle = math.radians(ranges.rotation) * sampled[:, 0]
  low, high = math.log(ranges.smallest), math.log(ranges.largest)
  size = jnp.exp(0.5 * (low + high) + 0.5 * (high - low) * sampled[:, 1])
  shift = 2.0 * ranges.shift * sampled[:, 2:4]
  side = jnp.where(sampled[:, 4] < 2.0 * ranges.mirror - 1.0, -1.0, 1.0)
  cos, sin = jnp.cos(angle) / size, jnp.sin(angle) / size
  # Forward: turn and scale, shift, and mirror last; so back: mirror, shift, turn.
  turn = jnp.stack([jnp.stack([cos, sin], -1), jnp.stack([-sin, cos], -1)], axis=-2)
  mirror = jnp.stack([side, jnp.ones_like(side)], axis=-1)
  back = -jnp.einsum("bij,bj->bi", turn, shift)
  return jnp.concatenate([turn * mirror[:, None, :], back[..., None]], axis=-1)


@checked
def warp_images(
  images: Float[Array, "B H W C"], matrix: Float[Array, "B 2 3"]
) -> Float[Array, "B H W C"]:
  """Warped images; what comes in from outside is white, as in `train.augment.rotate_and_stretch`.

  Args:
    images: RGB in [0, 1].
    matrix: from `draw_warps`.
  """
  return affine_sample(images, matrix, fill=1.0)


@checked
def warp_maps(
  maps: Float[Array, "B h w C"], matrix: Float[Array, "B 2 3"]
) -> Float[Array, "B h w C"]:
  """Warped masks, targets or features: zero outside. Differentiable in the maps.

  Args:
    maps: of any channels.
    matrix: from `draw_warps`.
  """
  return affine_sample(maps, matrix)


@checked
def warp_logits(
  logits: Float[Array, "B h w P1"], matrix: Float[Array, "B 2 3"]
) -> Float[Array, "B h w P1"]:
  """Warped logits, less those of the background; what comes in from outside is background.

  Args:
    logits: background first.
    matrix: from `draw_warps`.

  Source: Hung et al. 2019 (SCOPS), section 3.3. Departs: outside, equal logits would mean that all
    parts are equally likely there.
  """
  parts = affine_sample(logits[..., 1:] - logits[..., :1], matrix, fill=_NOTHING)
  return jnp.concatenate([jnp.zeros_like(parts[..., :1]), parts], axis=-1)
