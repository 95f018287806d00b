"""A part means one thing: its pixels have one feature, learned with the network."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.types import checked

# Added to squared lengths, so that a row of zeros has a gradient.
_EPSILON = 1e-8


@checked
def semantic_loss(
  *,
  probs: Float[Array, "B h w P1"],
  features: Float[Array, "B h w C"],
  mask: Float[Array, "B h w"],
  basis: Float[Array, "P C"],
) -> Float[Array, "B"]:
  """How badly the parts explain the features of their pixels.

  Args:
    probs: softmax of the logits, background first; the background explains nothing.
    features: of a frozen network.
    mask: of the object; outside, features count as zero.
    basis: the features that the parts have; learned. Where negative, read as zero.

  Returns:
    The squared error of each image, averaged over pixels and channels.

  Source: Hung et al. 2019 (SCOPS), section 3.4.
  """
  explained = jnp.einsum("bhwp,pc->bhwc", probs[..., 1:], jax.nn.relu(basis))
  return jnp.mean(jnp.square(explained - features * mask[..., None]), axis=(1, 2, 3))


@checked
def orthonormality_loss(basis: Float[Array, "P C"]) -> Float[Array, ""]:
  """How much the parts' features resemble each other: one value, not one per image.

  Args:
    basis: as in `semantic_loss`; where negative, read as zero.

  Returns:
    The sum of the squares of W W^T - I, of W with rows of length one.

  Source: Hung et al. 2019 (SCOPS), section 3.4.
  """
  used = jax.nn.relu(basis)
  length = jnp.sqrt(jnp.sum(jnp.square(used), axis=-1, keepdims=True) + _EPSILON)
  rows = used / length
  return jnp.sum(jnp.square(rows @ rows.T - jnp.eye(len(basis), dtype=basis.dtype)))
