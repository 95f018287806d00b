"""Closeness of the texture flow to what the camera sees."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.types import checked


@checked
def correction_loss(correction: Float[Array, "B Hu Wu 2"]) -> Float[Array, "B"]:
  """Mean squared length of the head's departures from the camera's flow.

  Colours alone decide badly where a point of the surface lies on a photograph: they teach
  departures that are partly the same for all photographs, and move points that were in their place.

  Args:
    correction: the texture head's output with `model.flow=projected`, in image space.

  Returns:
    One value per image, in squared image-space units, over the whole UV map, unseen points
    included.

  Source: not in Li et al. 2020, whose network predicts the whole flow.
  """
  return jnp.mean(jnp.sum(jnp.square(correction), axis=-1), axis=(-2, -1))
