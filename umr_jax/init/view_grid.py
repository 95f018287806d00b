"""The grid of views that images are compared with."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from umr_jax.geometry import quaternion
from umr_jax.models.camera_heads import upright_rotation
from umr_jax.models.view_template import MODE_DEGREES
from umr_jax.types import checked

# What photographers do: from a little above, and level. Mean and deviation of the elevation,
# deviation of the roll, in degrees, and the share of views that may be any.
_ELEVATION, _ELEVATION_DEVIATION, _ROLL_DEVIATION, _ANY = 15.0, 15.0, 8.0, 0.01


@struct.dataclass
class ViewGrid:
  """Views of an upright object: every azimuth with every elevation and roll."""

  rotations: Float[Array, "K 4"]  # quaternions
  azimuth: Int[Array, "K"]  # the number of the view's azimuth
  opposite: Int[Array, "K"]  # the view from the other side: half a turn about the vertical
  log_prior: Float[Array, "K"]  # how likely a view is before its image is seen; 0 for the likeliest
  azimuths: int = struct.field(pytree_node=False)  # how many


def make_view_grid(
  azimuths: int, elevations: Float[np.ndarray, "E"], rolls: Float[np.ndarray, "R"]
) -> ViewGrid:
  """Builds the grid.

  Args:
    azimuths: how many, evenly around the circle; even, so that every view has an opposite.
    elevations: degrees.
    rolls: degrees.

  Raises:
    ValueError: for an odd number of azimuths.
  """
  if azimuths % 2:
    raise ValueError(f"found {azimuths} azimuths; expected an even number")
  number, height, lean = (
    axis.ravel() for axis in np.meshgrid(np.arange(azimuths), elevations, rolls, indexing="ij")
  )
  others = len(number) // azimuths
  usual = ((height - _ELEVATION) / _ELEVATION_DEVIATION) ** 2 + (lean / _ROLL_DEVIATION) ** 2
  prior = (1.0 - _ANY) * np.exp(-0.5 * usual) + _ANY
  opposite = (np.arange(len(number)) + others * (azimuths // 2)) % len(number)
  angles = (number * (360.0 / azimuths), height, lean)
  return ViewGrid(
    rotations=upright_rotation(*(jnp.asarray(angle, jnp.float32) for angle in angles)),
    azimuth=jnp.asarray(number, jnp.int32),
    opposite=jnp.asarray(opposite, jnp.int32),
    log_prior=jnp.asarray(np.log(prior), jnp.float32),
    azimuths=azimuths,
  )


@checked
def mean_rotations(
  scores: Float[Array, "N K"],
  view: Int[Array, "N"],
  rotations: Float[Array, "K 4"],
  *,
  temperature: float = 1.0,
) -> Float[Array, "N 4"]:
  """The weighted mean of the views around one view: finer than the grid.

  Args:
    scores: of the views, for each image; their weights are softmax(scores / temperature).
    view: the one around which the mean is taken.
    rotations: quaternions of the views.
    temperature: of the weights.
  """
  # q and -q are one rotation: signs are aligned with the given view's.
  cosines = rotations @ rotations.T
  around = 2.0 * jnp.arccos(jnp.clip(jnp.abs(cosines), 0.0, 1.0)) < jnp.deg2rad(MODE_DEGREES)
  weights = jax.nn.softmax(jnp.where(around[view], scores / temperature, -jnp.inf), axis=1)
  return quaternion.normalize((weights * jnp.sign(cosines)[view]) @ rotations)
