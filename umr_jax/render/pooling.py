"""Antialiasing: from samples to pixels."""

import jax.numpy as jnp
from jaxtyping import Array


def pool(image: Array, factor: int) -> Array:
  """The mean over blocks of factor x factor pixels of [B, H, W, ...]."""
  if factor == 1:
    return image
  batch, height, width = image.shape[:3]
  blocks = (batch, height // factor, factor, width // factor, factor, *image.shape[3:])
  return jnp.mean(image.reshape(blocks), axis=(2, 4))


def pool_ids(face_ids: Array, depth: Array, factor: int) -> Array:
  """The face of the nearest sample of each block."""
  if factor == 1:
    return face_ids
  batch, height, width = face_ids.shape
  blocks = (batch, height // factor, factor, width // factor, factor)

  def samples(image: Array) -> Array:
    image = jnp.swapaxes(image.reshape(blocks), 2, 3)
    return image.reshape(*image.shape[:3], factor * factor)

  nearest = jnp.argmin(samples(depth), axis=-1)
  return jnp.take_along_axis(samples(face_ids), nearest[..., None], axis=-1)[..., 0]
