"""What the network's cameras owe to a camera that was found for the image by search."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.types import checked


@checked
def camera_bank_loss(
  *, cameras: Float[Array, "B K 7"], found: Float[Array, "B 7"]
) -> Float[Array, "B K"]:
  """How far each hypothesis's rotation is from the one that was found.

  Args:
    cameras: the network's hypotheses.
    found: one camera per image, from the bank; scale and translation are left to the mask.

  Returns:
    sin^2 of half the angle between both rotations: 0 to 1.

  Departs: the paper's cameras learn from the mask and semantic terms alone.
  """
  dot = jnp.einsum("bkc,bc->bk", cameras[..., 3:], found[:, 3:])
  return 1.0 - jnp.square(dot)
