"""A warped picture has the warped parts."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.parts.concentration import spread
from umr_jax.types import checked


@checked
def equivariance_loss(
  *, logits: Float[Array, "B h w P1"], target: Float[Array, "B h w P1"]
) -> Float[Array, "B"]:
  """How much the prediction on a warped picture differs from the warped prediction.

  Args:
    logits: predicted on the warped and recoloured picture.
    target: predicted on the picture itself, then warped. No gradient flows into it.

  Returns:
    The Kullback-Leibler divergence from softmax(target) to softmax(logits), averaged over pixels
    and channels.

  Source: Hung et al. 2019 (SCOPS), section 3.3, and the released averaging.
  """
  expected = jax.nn.log_softmax(jax.lax.stop_gradient(target), axis=-1)
  found = jax.nn.log_softmax(logits, axis=-1)
  return jnp.mean(jnp.exp(expected) * (expected - found), axis=(1, 2, 3))


@checked
def landmark_loss(
  *, logits: Float[Array, "B h w P1"], warped: Float[Array, "B h w P1"]
) -> Float[Array, "B"]:
  """How far the parts' centres lie apart in the two predictions of `equivariance_loss`.

  Args:
    logits: predicted on the warped and recoloured picture.
    warped: predicted on the picture itself, then warped. Gradients flow into both.

  Returns:
    The squared gap, in half images squared, averaged over parts, x and y.

  Source: Hung et al. 2019 (SCOPS), section 3.3.
  """
  found, _ = spread(jax.nn.softmax(logits, axis=-1)[..., 1:])
  expected, _ = spread(jax.nn.softmax(warped, axis=-1)[..., 1:])
  return jnp.mean(jnp.square(found - expected), axis=(1, 2))
