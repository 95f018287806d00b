"""The terms of the texture flow: image distance, distance transform, cycle, and correction."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from umr_jax.geometry.sampling import bilinear_sample
from umr_jax.models.perceptual import load_perceptual, perceptual_distance
from umr_jax.types import checked

# (rendered, alpha, image, mask), all by name, to one distance per image.
TextureDistance = Callable[..., Float[Array, "*B"]]

# Octaves of the pyramid, and the size below which a further octave adds nothing.
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
    image: the input, in [0, 1]; an axis of 1 where several renders are of one image.
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
    A function of the arguments of `texture_distance`. The perceptual distance takes both
    images black outside their silhouettes.

  Raises:
    FileNotFoundError: where there is no such file; the message names its source.

  Source: Li et al. 2020, section 3.3.
  """
  if weights == "none":
    return texture_distance
  params = load_perceptual(weights)

  def distance(*, rendered: Array, alpha: Array, image: Array, mask: Array) -> Array:
    render, target = rendered * alpha[..., None], image * mask[..., None]
    # One target for all renders under its hypotheses.
    return perceptual_distance(params, render, target if render.ndim == 4 else target[:, 0])

  return distance


@checked
def texture_dt_loss(
  *, flow: Float[Array, "*B F T 2"], barrier: Float[Array, "*B H W"]
) -> Float[Array, "*B"]:
  """Mean of the silhouette's barrier field at the positions that the texture flow samples.

  Args:
    flow: where each of a face's T texels samples the image, in image space.
    barrier: 0 deep inside the silhouette, 1 far outside it, made from the distance transform.

  Returns:
    One value per image in [0, 1]: the mean over all F T positions.

  Source: distance-transform term of Kanazawa et al. 2018 (CMR), in the saturating form
  that the released models of Li et al. 2020 use.

  Departs: a position outside the image reads 1, as far background does, and a position in the outer
  half pixel blends towards that. Zero padding, as in the released code, would reward leaving the
  image.
  """
  *batch, faces, texels, _ = flow.shape
  # The sampler pads with zero: sample the field below its ceiling, so that zero means background.
  below = bilinear_sample((barrier - 1.0)[..., None], flow.reshape(*batch, faces * texels, 2))
  return 1.0 + jnp.mean(below, axis=(-2, -1))


@checked
def texture_cycle_loss(
  *,
  flow: Float[Array, "*B F T 2"],
  projected_centroids: Float[Array, "*B F 2"],
  visible: Bool[Array, "*B F"],
) -> Float[Array, "*B"]:
  """Squared gap between where each face samples and where it is rendered.

  Ties the texture branch to the geometry branch: without it, a face may borrow its colour from any
  pixel that looks alike (the far wing for the near one).

  Args:
    flow: where each of a face's T texels samples the image, in image space.
    projected_centroids: mean image position of the pixels that a face covers, weighted by the
      rasterizer (`Fragments.landing`). A target: no gradient flows into it. May be NaN for a face
      that is not visible.
    visible: True for a face that is the nearest at one pixel at least.

  Returns:
    One value per image, in squared image-space units, averaged over all F faces (a face that is not
    visible counts as zero) and over x and y.

  Raises:
    jaxtyping.TypeCheckError: at trace time, if shapes or dtypes disagree (F = 1 would otherwise
      broadcast into a plausible number).

  Source: Li et al. 2020, section 3.3, texture cycle consistency L_tcyc: the mean over faces of
    |C_in - C_out|^2, with C_in the mean of the flow over a face and C_out its projected centroid.
  """
  sampled = jnp.mean(flow, axis=-2)
  gap = sampled - jax.lax.stop_gradient(projected_centroids)
  # Mask before squaring: 0 * NaN in the backward pass is NaN.
  gap = jnp.where(visible[..., None], gap, 0.0)
  return jnp.mean(jnp.square(gap), axis=(-2, -1))


@checked
def flow_correction_loss(correction: Float[Array, "B Hu Wu 2"]) -> Float[Array, "B"]:
  """Mean squared length of what the network adds to the projected flow.

  Colours alone determine poorly where a point of the surface lies in an image: fitted to them, the
  corrections are partly the same for all images, and move points that were in their place.

  Args:
    correction: the texture head's output with `model.flow=projected`, in image space.

  Returns:
    One value per image, in squared image-space units, over the whole UV map, hidden points
    included.

  Source: not in Li et al. 2020, whose network predicts the whole flow.
  """
  return jnp.mean(jnp.sum(jnp.square(correction), axis=-1), axis=(-2, -1))
