"""Which view each training image is taken from, once all have been compared with all views."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.geometry import quaternion
from umr_jax.losses.renders import choose_rows
from umr_jax.types import checked

# A view fits about this share of all images: what it reaches there is what it usually reaches.
_FITTING = 0.3
# The views within so many degrees of the best one share in the camera; who lies so much of a
# logarithm behind has a share smaller by e.
_NEIGHBORS, _SHARPNESS = 40.0, 0.05


@checked
def choose_cameras(
  values: Float[Array, "N K"],
  places: Float[Array, "N K 3"],
  rotations: Float[Array, "K 4"],
  *,
  evenness: float,
) -> Float[Array, "N 7"]:
  """The camera of each image, once all images have been compared with all views.

  Some views suit every image a little, and draw what belongs to their neighbours; the shapes are
  then learned under them, which makes them suit even more. So a score counts by how much better it
  is than what the view usually reaches where it fits. Around the best view the rotation is the mean
  of the views, weighted by their scores: the grid is coarse.

  Args:
    values: logarithms of scores, of all images.
    places: scale and translation in each view.
    rotations: quaternions of the views.
    evenness: how much of what a view usually reaches is taken off. 0: nothing; 1: all of it, which
      suits photographs from all around alone: of photographs from one side (embedded birds) it
      turned many around.

  Returns:
    Cameras.
  """
  count = max(1, round(_FITTING * values.shape[0]))
  usual = jnp.mean(jax.lax.top_k(values.T, count)[0], axis=1)
  values = values - evenness * usual[None]
  view = jnp.argmax(values, axis=1)
  # q and -q are one rotation: all are turned to the best one's side.
  alike = rotations @ rotations.T
  around = 2.0 * jnp.arccos(jnp.clip(jnp.abs(alike), 0.0, 1.0)) < jnp.deg2rad(_NEIGHBORS)
  weights = jax.nn.softmax(jnp.where(around[view], values / _SHARPNESS, -jnp.inf), axis=1)
  mean = quaternion.normalize((weights * jnp.sign(alike)[view]) @ rotations)
  return jnp.concatenate([choose_rows(places, view), mean], axis=-1)
