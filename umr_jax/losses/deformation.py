"""Closeness to the template: predicted offsets should be small."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.losses.norm import safe_norm
from umr_jax.types import checked


@checked
def deformation_loss(half_offsets: Float[Array, "*B Vh 3"]) -> Float[Array, "*B"]:
  """Mean length of the offsets that take the template to an instance.

  The length, not its square: most vertices are asked to stay while a few may move far.

  Args:
    half_offsets: predicted offsets of the learned half of the vertices, in object space.

  Returns:
    One value per image, in object units. Its gradient is zero at a zero offset.

  Source: Li et al. 2020, section 3.2 (deformation regularization), after Kanazawa et al. 2018
  (CMR).
  """
  return jnp.mean(safe_norm(half_offsets), axis=-1)


@checked
def shape_variance_loss(half_offsets: Float[Array, "B Vh 3"]) -> Float[Array, "B"]:
  """Mean distance of an instance's offsets from their mean over the batch.

  Where it weighs much, all instances share one shape, which is free to change: views must then be
  told apart by cameras. Without it every outline can be bent to fit a few cameras.

  Args:
    half_offsets: predicted offsets of the learned half of the vertices, in object space; on several
      devices the batch is the device's share.

  Returns:
    One value per image, in object units; zero for a batch of equal shapes.

  Source: not in Li et al. 2020; Goel et al. 2020 (U-CMR) settle the cameras with the template alone
  before they free the shapes.
  """
  mean = jnp.mean(half_offsets, axis=0, keepdims=True)
  return jnp.mean(safe_norm(half_offsets - mean), axis=-1)
