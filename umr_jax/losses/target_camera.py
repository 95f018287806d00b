"""What the network's cameras owe to a camera that was found for the image by search."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.types import checked


@checked
def target_camera_loss(
  *, cameras: Float[Array, "B K 7"], found: Float[Array, "B 7"]
) -> Float[Array, "B K"]:
  """How far each hypothesis is from the camera that was found.

  Args:
    cameras: the network's hypotheses.
    found: one camera per image, from the bank.

  Returns:
    sin^2 of half the angle between both rotations, a quarter of the squared relative difference of
    scales, and the squared distance of translations. The latter two are small beside the mask term
    where a mesh is in view at all; one that has shrunk to nothing or left the image has no other
    way back.

  Departs: the paper's cameras learn from the mask and semantic terms alone.
  """
  dot = jnp.einsum("bkc,bc->bk", cameras[..., 3:], found[:, 3:])
  size = found[:, None, 0]
  growth = jnp.square((cameras[..., 0] - size) / size)
  shift = jnp.sum(jnp.square(cameras[..., 1:3] - found[:, None, 1:3]), axis=-1)
  return 1.0 - jnp.square(dot) + 0.25 * growth + shift
