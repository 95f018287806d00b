"""How well the network tells the object's pixels from the background's."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.types import checked


@checked
def segmentation_loss(
  *, logits: Float[Array, "B h w"], mask: Float[Array, "B H W"]
) -> Float[Array, "B"]:
  """Cross-entropy between predicted pixels and the silhouette.

  Args:
    logits: of a pixel being the object's.
    mask: the silhouette in [0, 1], of any size; it is resized to the logits'.

  Returns:
    The mean over pixels, in nats. Its least value is the entropy of the soft mask, 0 for a binary
    one.

  Departs: not a term of the paper; see `models.mask_head`.
  """
  target = jax.image.resize(mask, logits.shape, "linear")
  return jnp.mean(jax.nn.softplus(logits) - target * logits, axis=(-2, -1))
