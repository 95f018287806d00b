"""Between rounds: the template is turned so that the up direction of the images is its z."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float

from umr_jax.data.batching import evaluation_batches
from umr_jax.data.dataset import Split
from umr_jax.data.transforms import CropSpec
from umr_jax.geometry import quaternion
from umr_jax.geometry.camera import Camera
from umr_jax.models.infer import Infer
from umr_jax.types import EMState, Model, Template

# Length of the mean up direction below which cameras do not agree.
_LEAST = 0.3
# Images whose cameras are averaged.
_IMAGES = 500


def camera_rotations(
  infer: Infer,
  model: Model,
  split: Split,
  *,
  spec: CropSpec,
  batch_size: int,
) -> Float[np.ndarray, "M 4"]:
  """The rotation of the most probable camera of some training images.

  Args:
    infer: jitted.
    model: of the round that ended.
    split: the training images; at most 500 of them, spread over all, are used.
    spec: of their crops.
    batch_size: images at a time.
  """
  rotations = []
  for batch, _ in evaluation_batches(split.subsample(_IMAGES), spec, batch_size=batch_size):
    found = infer(model, jnp.asarray(batch.image))
    rotations.append(np.asarray(Camera.unpack(found.camera).quaternion)[batch.valid])
  return np.concatenate(rotations)


def mean_up(rotations: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "3"]:
  """The mean up direction of images, in object space.

  Args:
    rotations: unit quaternions of cameras, whose image y points down.

  Returns:
    The mean of unit vectors; of length 1 where all cameras agree.
  """
  matrices = np.asarray(quaternion.to_matrix(jnp.asarray(rotations)))
  return -matrices[:, 1].mean(axis=0)


def align_to_vertical(em_state: EMState, up: Float[np.ndarray, "3"]) -> EMState:
  """Turns template and target cameras so that `up` is z, about which hypotheses spread.

  A network that is free in its cameras may learn a template that leans; the next one's hypotheses
  would spread about an axis that no image has upright. The turn is about y, which keeps the
  mirror plane in its place; the canonical map lies on the mesh and turns with it.

  Args:
    em_state: at the end of a round; the network that belongs to it must not be used any more.
    up: `mean_up` of that network's cameras.

  Returns:
    The turned state; the same one where the cameras do not agree on what is up.

  Source: Li et al. 2020, supplementary 2.2 (hypotheses "as in" Kulkarni et al. 2019, which spread
    in azimuth). Departs: about the mean up of the last round's cameras; the papers leave it open.
  """
  if math.hypot(up[0], up[2]) < _LEAST:
    logging.info("The cameras do not agree on what is up: the template stays as it is.")
    return em_state
  angle = -math.atan2(up[0], up[2])
  logging.info("The template is turned by %.1f degrees to be upright.", math.degrees(angle))
  turn = quaternion.from_axis_angle(jnp.array([0.0, 1.0, 0.0]), jnp.float32(angle))
  half = quaternion.rotate(jnp.asarray(em_state.template.half_vertices), turn)
  cameras = em_state.target_cameras
  if cameras is not None:
    back = jnp.broadcast_to(quaternion.conjugate(turn), (len(cameras), 4))
    found = Camera.unpack(jnp.asarray(cameras))
    turned = dataclasses.replace(found, quaternion=quaternion.multiply(found.quaternion, back))
    cameras = np.asarray(turned.pack())
  template = Template(half_vertices=np.asarray(jax.device_get(half)))
  return dataclasses.replace(em_state, template=template, target_cameras=cameras)
