"""Between rounds: the template stands up in its own frame, as its photographs show it."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float

from umr_jax.geometry import quaternion
from umr_jax.types import EMState, Template

# Length of the mean of unit vectors below which cameras do not agree on what is up.
_LEAST = 0.3


def align_to_vertical(rotations: Float[np.ndarray, "N 4"]) -> np.ndarray:
  """What the photographs show as up, in object space.

  Args:
    rotations: unit quaternions of cameras, whose image y points down.

  Returns:
    [3] the mean of the upward directions; of length 1 where all cameras agree.
  """
  matrices = np.asarray(quaternion.to_matrix(jnp.asarray(rotations)))
  return -matrices[:, 1].mean(axis=0)


def stood_up(em_state: EMState, up: Float[np.ndarray, "3"]) -> EMState:
  """The state with its template and bank turned so that `up` is z, where hypotheses spread about z.

  A network that is free in its cameras may learn a template that leans; the next one's hypotheses
  would circle about an axis that no photograph has upright. The turn is about y, which keeps the
  mirror plane in its place; the canonical map lies on the mesh and turns with it.

  Args:
    em_state: at the end of a round; the network that belongs to it must not be used any more.
    up: `align_to_vertical` of that network's cameras.

  Returns:
    The turned state; the same one where the cameras do not agree on what is up.

  Source: Li et al. 2020, supplementary 2.2 (hypotheses "as in" Kulkarni et al. 2019, which spread
    in azimuth). Departs: about the mean up of the last round's cameras; the papers leave it open.
  """
  if math.hypot(up[0], up[2]) < _LEAST:
    logging.info("The cameras do not agree on what is up: the template stays as it is.")
    return em_state
  angle = -math.atan2(up[0], up[2])
  logging.info("The template is turned by %.1f degrees to stand upright.", math.degrees(angle))
  turn = quaternion.from_axis_angle(jnp.array([0.0, 1.0, 0.0]), jnp.float32(angle))
  half = quaternion.rotate(jnp.asarray(em_state.template.half_vertices), turn)
  bank = em_state.target_cameras
  if bank is not None:
    back = jnp.broadcast_to(quaternion.conjugate(turn), (len(bank), 4))
    turned = quaternion.multiply(jnp.asarray(bank[:, 3:]), back)
    bank = np.concatenate([bank[:, :3], np.asarray(turned)], axis=-1)
  return dataclasses.replace(
    em_state, template=Template(half_vertices=np.asarray(jax.device_get(half))), target_cameras=bank
  )
