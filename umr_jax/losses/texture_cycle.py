"""Texture cycle consistency: a face must sample the image where it projects."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from umr_jax.types import checked


@checked
def texture_cycle_loss(
  *,
  flow: Float[Array, "*B F T 2"],
  landing: Float[Array, "*B F 2"],
  visible: Bool[Array, "*B F"],
) -> Float[Array, "*B"]:
  """Squared gap between where each face samples and where it is rendered.

  Ties the texture branch to the geometry branch: without it, a face may borrow its colour from any
  pixel that looks alike (the far wing for the near one).

  Args:
    flow: where each of a face's T texels samples the image, in image space.
    landing: mean image position of the pixels a face covers, weighted by the rasterizer. A target:
      no gradient flows into it. May be NaN where unseen.
    visible: True for a face that wins at least one pixel of its own view.

  Returns:
    One value per image, in squared image-space units, averaged over all F faces (so an unseen face
    counts as zero) and over x and y.

  Raises:
    jaxtyping.TypeCheckError: at trace time, if shapes or dtypes disagree (F = 1 would otherwise
      broadcast into a plausible number).

  Source: Li et al. 2020, section 3.3, texture cycle consistency.
  """
  sampled = jnp.mean(flow, axis=-2)
  gap = sampled - jax.lax.stop_gradient(landing)
  # Mask before squaring: 0 * NaN in the backward pass is NaN.
  gap = jnp.where(visible[..., None], gap, 0.0)
  return jnp.mean(jnp.square(gap), axis=(-2, -1))
