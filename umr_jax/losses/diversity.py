"""How alike the camera hypotheses of an image are."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from umr_jax.geometry import quaternion
from umr_jax.types import checked


@checked
def camera_diversity(rotations: Float[Array, "*B K 4"]) -> Float[Array, "*B"]:
  """How near the hypotheses' rotations come to each other.

  Args:
    rotations: unit quaternions of the K hypotheses.

  Returns:
    pi minus the angle to the nearest other hypothesis, averaged over the hypotheses: in [0, pi],
    pi where all agree, in radians. A single hypothesis has no other, and costs nothing.

  Source: Kulkarni et al. 2019 (CSM), whose regulariser has a weight of 1.
  """
  count = rotations.shape[-2]
  if count == 1:
    return jnp.zeros(rotations.shape[:-2], rotations.dtype)
  # Each with every other, and never with itself.
  others = (np.arange(count)[:, None] + np.arange(1, count)[None]) % count
  near = rotations[..., others, :]
  own = jnp.broadcast_to(rotations[..., :, None, :], near.shape)
  return jnp.mean(jnp.pi - jnp.min(quaternion.geodesic_angle(own, near), axis=-1), axis=-1)
