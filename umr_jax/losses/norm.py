"""The Euclidean norm with a derivative everywhere, for the losses that need one."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.types import checked


@checked
def safe_norm(vectors: Float[Array, "*N C"]) -> Float[Array, "*N"]:
  """Length of each vector, with gradient zero where the length is zero.

  The plain norm's derivative at the origin is 0 / 0, and the origin is where predicted offsets
  start and where the edges of a collapsed face end.

  Args:
    vectors: any number of vectors of C coordinates.

  Returns:
    The lengths, exact: no epsilon is added.
  """
  squared = jnp.sum(jnp.square(vectors), axis=-1)
  nonzero = squared > 0.0
  # The inner `where` keeps the root's infinite slope out of the backward pass; the outer one
  # restores the value. One alone would leave 0 * inf = NaN.
  return jnp.where(nonzero, jnp.sqrt(jnp.where(nonzero, squared, 1.0)), 0.0)
