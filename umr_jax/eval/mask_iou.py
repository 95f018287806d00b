"""How well rendered silhouettes cover the images' masks, image by image."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.losses.mask import soft_iou
from umr_jax.types import checked


@checked
def soft_mask_iou(
  *, alpha: Float[Array, "*B H W"], mask: Float[Array, "*B H W"]
) -> Float[Array, "*B"]:
  """The published measure: intersection over union of the two coverages, without a threshold.

  Args:
    alpha: rendered coverage, in [0, 1].
    mask: the image's silhouette, in [0, 1].

  Returns:
    One value per image; slightly below 1 even for a perfect shape, since the edges are soft.

  Source: Li et al. 2020, section 4.2 (mask IoU), in the soft form of the released evaluation.
  """
  return soft_iou(alpha=alpha, mask=mask)


@checked
def hard_mask_iou(
  *, alpha: Float[Array, "*B H W"], mask: Float[Array, "*B H W"]
) -> Float[Array, "*B"]:
  """Intersection over union of the two silhouettes, each taken where its coverage is above half.

  Args:
    alpha: rendered coverage, in [0, 1].
    mask: the image's silhouette, in [0, 1].

  Returns:
    One value per image; 1 for equal silhouettes and 0 where both are empty.
  """
  return soft_iou(alpha=(alpha > 0.5).astype(jnp.float32), mask=(mask > 0.5).astype(jnp.float32))
