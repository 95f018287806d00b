"""Where the parts are, and how far they spread: a part is one piece."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.types import checked

# Added to every pixel: a part that is nowhere lies in the middle, without a division by zero.
_LEAST = 1e-3
# The published loss is divided by the batch size twice; with this one its weight means the same at
# every batch size.
_PUBLISHED_BATCH = 6.0


def spread(
  probs: Float[Array, "B h w P"],
) -> tuple[Float[Array, "B P 2"], Float[Array, "B P 2"]]:
  """The centre and the variance of every part, as (x, y), of maps that reach from -1 to 1."""
  height, width = probs.shape[1:3]
  density = probs + _LEAST
  density = density / jnp.sum(density, axis=(1, 2), keepdims=True)
  x, y = ((2.0 * jnp.arange(n, dtype=probs.dtype) + 1.0 - n) / n for n in (width, height))
  columns, rows = jnp.sum(density, axis=1), jnp.sum(density, axis=2)
  center, variance = [], []
  for marginal, place in ((columns, x), (rows, y)):
    mean = jnp.einsum("bnp,n->bp", marginal, place)
    gap = place[None, :, None] - mean[:, None]
    center.append(mean)
    variance.append(jnp.sum(marginal * jnp.square(gap), axis=1))
  return jnp.stack(center, axis=-1), jnp.stack(variance, axis=-1)


@checked
def concentration_loss(probs: Float[Array, "B h w P1"]) -> Float[Array, "B"]:
  """How far the parts of each image spread around their centres.

  Args:
    probs: softmax of the logits, background first; the background may spread.

  Returns:
    The sum over parts of the variances in x and y, in half images squared, over 6.

  Source: Hung et al. 2019 (SCOPS), section 3.2. Departs: the released loss divides by the batch
    size once more than a mean does; this one divides by the published batch size.
  """
  _, variance = spread(probs[..., 1:])
  return jnp.sum(variance, axis=(1, 2)) / _PUBLISHED_BATCH
