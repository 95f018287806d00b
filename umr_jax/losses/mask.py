"""The silhouette terms: of the rendered mesh, and of pixels that the network predicts."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

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
