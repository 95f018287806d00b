"""Texels must be sampled on the object, not on the background."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.geometry.sampling import bilinear_sample
from umr_jax.types import checked


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
