"""Image distance without a pretrained network: colours and their edges at several scales."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.models.perceptual import load_perceptual, perceptual_distance
from umr_jax.types import checked

# (rendered, alpha, image, mask), all by name, to one distance per image.
TextureDistance = Callable[..., Float[Array, "*B"]]

# Octaves of the pyramid, and the size below which a further octave says nothing.
LEVELS = 4
SMALLEST = 8
# The Charbonnier distance sqrt(d^2 + s^2) - s turns from quadratic to linear at s: a quarter of
# one step of an 8-bit image, so that it is L1 for every visible difference.
SOFTNESS = 1e-3
# Weight of a region too small to matter: it makes the mean over an empty region 0, not 0 / 0.
EPS = 1e-6


def _charbonnier(difference: Array) -> Array:
  return jnp.sqrt(jnp.square(difference) + SOFTNESS**2) - SOFTNESS


def _weighted_mean(values: Array, weights: Array) -> Array:
  """Mean over pixels and channels of [*B, C, H, W] under weights [*B, H, W]."""
  values = jnp.mean(values, axis=-3)
  total = jnp.sum(weights, axis=(-2, -1))
  return jnp.sum(values * weights, axis=(-2, -1)) / (total + EPS)


def _halve(image: Array) -> Array:
  """2 x 2 average pooling of [*B, H, W]; an odd side is first padded with zeros."""
  *batch, height, width = image.shape
  image = jnp.pad(image, [(0, 0)] * len(batch) + [(0, height % 2), (0, width % 2)])
  height, width = (height + 1) // 2, (width + 1) // 2
  rows = jnp.sum(image.reshape(*batch, height, 2, 2 * width), axis=-2)
  # Neighbours within a row are added by a matrix product: on a CPU about twice as fast, forward and
  # backward, as a sum over an innermost axis of 2. Some devices round factors unless told not to.
  pairs = 0.25 * jnp.repeat(jnp.eye(width, dtype=image.dtype), 2, axis=0)
  return jnp.matmul(rows, pairs, precision="highest")


def _level_distance(difference: Array, region: Array) -> Array:
  """Colour plus edge distance of one level, from [*B, C, H, W] and its region [*B, H, W]."""
  colour = _weighted_mean(_charbonnier(difference), region)
  across = difference[..., :, 1:] - difference[..., :, :-1]
  down = difference[..., 1:, :] - difference[..., :-1, :]
  # A step between two pixels belongs to the region as far as either pixel does.
  across_region = jnp.maximum(region[..., :, 1:], region[..., :, :-1])
  down_region = jnp.maximum(region[..., 1:, :], region[..., :-1, :])
  edges = _weighted_mean(_charbonnier(across), across_region)
  edges += _weighted_mean(_charbonnier(down), down_region)
  return colour + 0.5 * edges


@checked
def texture_distance(
  *,
  rendered: Float[Array, "*B H W 3"],
  alpha: Float[Array, "*B H W"],
  image: Float[Array, "*#B H W 3"],
  mask: Float[Array, "*#B H W"],
) -> Float[Array, "*B"]:
  """Multi-scale distance of colours and colour edges between a render and its image.

  With d = rendered alpha - image mask, pooled 2 x 2 from one level s to the next, c(x) =
  sqrt(x^2 + 0.001^2) - 0.001, and U = alpha + mask - alpha mask, pooled alike:

    distance = mean over s of [ <c(d_s)> + 1/2 <c(dx d_s)> + 1/2 <c(dy d_s)> ]

  where <.> is the mean over channels and over the pixels of U_s, and dx, dy are differences of
  neighbouring pixels. Pooling and differences are linear, so those of d are the differences of
  those of the two images. There are 4 levels, fewer where a side would fall below 8 pixels. The
  coarse levels pull colours that lie many pixels away from where they belong, which a single-scale
  distance cannot; the edge terms are blind to a constant shift in brightness within the object.

  Args:
    rendered: the textured render, in [0, 1]; need not be black outside the object.
    alpha: the render's coverage, in [0, 1]. Gradients reach it through `rendered * alpha`, not
      through U, so that a distance is not made small by covering more background.
    image: the photograph, in [0, 1]; an axis of 1 where several renders are of one photograph.
    mask: its silhouette, in [0, 1].

  Returns:
    One value per image: 0 for equal images, about 0.1 to 0.5 for an untrained texture, at most 3.
    Where alpha and mask are both empty it is 0 and has no gradient.

  Source: stands where Li et al. 2020, section 3.3, have a perceptual distance.

  Departs: needs no network weights; `models.perceptual` holds the distance of the paper.
  """
  difference = rendered * alpha[..., None] - image * mask[..., None]
  # Channels first: three channels innermost would keep a CPU from vectorising.
  difference = jnp.moveaxis(difference, -1, -3)
  region = jax.lax.stop_gradient(alpha + mask - alpha * mask)
  total = _level_distance(difference, region)
  levels = 1
  while levels < LEVELS and min(region.shape[-2:]) >= 2 * SMALLEST:
    difference, region = _halve(difference), _halve(region)
    total += _level_distance(difference, region)
    levels += 1
  return total / levels


def texture_distance_from(weights: str) -> TextureDistance:
  """The distance that a config asks for: the paper's perceptual one, or `texture_distance`.

  Args:
    weights: a torchvision AlexNet file, or "none".

  Returns:
    A function of the arguments of `texture_distance`. The perceptual distance sees both images
    black outside their silhouettes.

  Raises:
    FileNotFoundError: where there is no such file; it says where to get one.

  Source: Li et al. 2020, section 3.3.
  """
  if weights == "none":
    return texture_distance
  params = load_perceptual(weights)

  def distance(*, rendered: Array, alpha: Array, image: Array, mask: Array) -> Array:
    seen, photograph = rendered * alpha[..., None], image * mask[..., None]
    # One photograph for all renders under its hypotheses.
    return perceptual_distance(params, seen, photograph if seen.ndim == 4 else photograph[:, 0])

  return distance
