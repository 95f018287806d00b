"""The silhouette terms: of the rendered mesh, of its outline, and of pixels that are predicted."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.geometry.sampling import pixel_centers
from umr_jax.types import checked

# Keeps an image in which neither silhouette covers anything finite; far below one pixel's area.
EPS = 1e-6


@checked
def soft_iou(*, alpha: Float[Array, "*B H W"], mask: Float[Array, "*#B H W"]) -> Float[Array, "*B"]:
  """Intersection over union of two soft silhouettes; the silhouette term is one minus it.

  Args:
    alpha: rendered coverage of each pixel, in [0, 1].
    mask: the image's silhouette, in [0, 1]; soft at its edges after resizing. An axis of 1 where
      several renders are of one image.

  Returns:
    One value per image in [0, 1]: sum(alpha mask) / sum(alpha + mask - alpha mask). 1 for equal
    binary silhouettes and 0 for disjoint or empty ones. With a soft mask the most is slightly
    below 1, since a pixel of 0.5 intersects itself by 0.25.

  Source: Li et al. 2020, section 3.2 (silhouette term); negative IoU after Liu et al. 2019
    (SoftRas).
  """
  both = alpha * mask
  intersection = jnp.sum(both, axis=(-2, -1))
  union = jnp.sum(alpha + mask - both, axis=(-2, -1))
  return intersection / (union + EPS)


@checked
def segmentation_loss(
  *, logits: Float[Array, "B h w"], mask: Float[Array, "B H W"]
) -> Float[Array, "B"]:
  """Cross-entropy between predicted pixels and the silhouette.

  Args:
    logits: of a pixel being the object's.
    mask: the silhouette in [0, 1], of any size; it is resized to the logits'.

  Returns:
    The mean over pixels, in nats. Its least value is the entropy of the soft mask, 0 for a binary
    one.

  Departs: not a term of Li et al. 2020; see `models.heads.MaskHead`.
  """
  target = jax.image.resize(mask, logits.shape, "linear")
  return jnp.mean(jax.nn.softplus(logits) - target * logits, axis=(-2, -1))


@checked
def outline_points(
  mask: Float[Array, "B H W"], *, count: int
) -> tuple[Float[Array, "B n 2"], Float[Array, "B n"]]:
  """Points on the outline of a silhouette: its pixels that have a neighbour outside of it.

  Args:
    mask: in [0, 1]; a pixel above a half is inside. Where the frame cuts the object off there is no
      outline.
    count: of points, at most H W; of an outline that is longer, the first ones from the top.

  Returns:
    Their positions in image space, and weights: 1, or 0 for those beyond the outline's length.
  """
  height, width = mask.shape[1:]
  outside = (mask <= 0.5).astype(mask.dtype)
  near = jax.lax.reduce_window(outside, 0.0, jax.lax.max, (1, 3, 3), (1, 1, 1), "SAME")
  weights, index = jax.lax.top_k((near * (1.0 - outside)).reshape(len(mask), -1), count)
  places = jnp.asarray(pixel_centers(height, width).reshape(-1, 2), mask.dtype)
  return places[index], weights


@checked
def outline_loss(
  projected: Float[Array, "B V 2"], points: Float[Array, "B n 2"], weights: Float[Array, "B n"]
) -> Float[Array, "B"]:
  """How far an outline is from the nearest vertices: a Chamfer distance in one direction.

  A silhouette's overlap pulls at what is next to its edge alone, and legs, beaks and wing tips lie
  further off.

  Args:
    projected: vertices in the image.
    points: of `outline_points`.
    weights: likewise.

  Returns:
    The mean squared distance, in image space; 0 without an outline.

  Source: Fan et al. 2017 (the Chamfer distance of point sets).
  """
  square = jnp.sum(jnp.square(projected), axis=-1)
  distances = square[:, None] - 2.0 * jnp.einsum("bnc,bvc->bnv", points, projected)
  # The nearest is found without a gradient: that of all distances together is most of the work.
  nearest = jnp.argmin(jax.lax.stop_gradient(distances), axis=-1)
  gaps = points - jnp.take_along_axis(projected, nearest[..., None], axis=1)
  total = jnp.sum(weights * jnp.sum(jnp.square(gaps), axis=-1), axis=-1)
  return total / jnp.maximum(jnp.sum(weights, axis=-1), 1.0)
