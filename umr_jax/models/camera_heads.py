"""From the feature to camera hypotheses and how likely each is."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from umr_jax.geometry import camera, quaternion
from umr_jax.models.layers import BatchNorm, Dense, constant, leaky_relu, normal
from umr_jax.types import checked

# A quarter turn about x: it shows an object whose vertical is z upright in an image whose y points
# down.
UPRIGHT = (math.sqrt(0.5), math.sqrt(0.5), 0.0, 0.0)
# How far a bounded azimuth reaches beyond its hypothesis's share of the circle.
_OVERLAP = 1.25
# Keeps a scale whose ReLU is shut from collapsing the mesh into a point.
_SMALLEST_SCALE = 1e-12


class CameraHeads(nn.Module):
  """Weak-perspective cameras, one or several per image.

  One hypothesis is three parallel fully connected layers. Several share a trunk of two layers, and
  each has a head of two more before its own parallel layers. All heads are computed side by side.

  Source: Li et al. 2020, supplementary 2.2; Kulkarni et al. 2019, section 3.3 (several hypotheses).
    Departs: every rotation is initialized near the upright view, not anywhere or at the identity;
    hypothesis k is turned by 360 k / K degrees about the object's vertical, where the released code
    stores such turns without using them; all hypotheses start equally likely; and the scale's ReLU
    passes its gradient where it is shut, too, where the released code has a plain one. With pose
    "upright" elevation and roll stay within bounds, a prior that images of upright things
    allow, and that separates most views from their depth-reversed twins.
  """

  hypotheses: int  # K
  spread: bool  # whether hypotheses are initialized around the object, not together
  pose: str  # free | upright
  elevation: tuple[float, ...]  # degrees, of upright poses
  roll: float  # largest, in degrees, of upright poses
  trunk_deviation: float  # of the trunk's initial weights

  @nn.compact
  @checked
  def __call__(
    self, feature: Float[Array, "B D"], *, train: bool
  ) -> tuple[Float[Array, "B K 7"], Float[Array, "B K"]]:
    """Predicts cameras.

    Args:
      feature: of the image.
      train: whether BatchNorm uses the batch's statistics.

    Returns:
      The hypotheses [scale, tx, ty, unit quaternion], and the logits of their probabilities.
    """
    batch, size = feature.shape
    x = feature
    if self.hypotheses > 1:
      initializer = normal(self.trunk_deviation)
      for i in (1, 2):
        x = leaky_relu(Dense(size, kernel_init=initializer, name=f"trunk{i}")(x), 0.1)
    x = jnp.broadcast_to(x[:, None], (batch, self.hypotheses, size))
    if self.hypotheses > 1:
      for i in (1, 2):
        x = Dense(size, stacked=True, name=f"hidden{i}")(x)
        norm = BatchNorm(channel_axes=2, name=f"hidden{i}_bn")
        x = leaky_relu(norm(x, train=train), 0.2)

    scale = _positive(Dense(1, stacked=True, name="scale")(x) + 1.0) + _SMALLEST_SCALE
    translation = Dense(2, stacked=True, name="translation")(x)
    turn = self._turn(x)
    if self.spread:
      turns = camera.azimuth_turns(self.hypotheses)
      turn = quaternion.multiply(turn, jnp.broadcast_to(turns[None], turn.shape))
    cameras = camera.Camera(scale[..., 0], translation, turn).pack()
    if self.hypotheses == 1:
      return cameras, jnp.zeros((batch, 1), feature.dtype)
    logits = Dense(1, stacked=True, kernel_init=constant(0.0), name="logit")(x)
    return cameras, logits[..., 0]

  def _turn(self, x: Float[Array, "B K D"]) -> Float[Array, "B K 4"]:
    """Every hypothesis's rotation before its azimuth is added."""
    if self.pose == "free":
      upright = constant(*UPRIGHT)
      return quaternion.normalize(Dense(4, stacked=True, bias_init=upright, name="quaternion")(x))
    bounded = jnp.tanh(Dense(3, stacked=True, name="angles")(x))
    # A little more than its share of the circle, so that neighbours overlap.
    azimuth = _OVERLAP * 180.0 / x.shape[1] * bounded[..., 0]
    low, high = self.elevation
    elevation = 0.5 * (low + high) + 0.5 * (high - low) * bounded[..., 1]
    return upright_rotation(azimuth, elevation, self.roll * bounded[..., 2])


@jax.custom_jvp
def _positive(x: Array) -> Array:
  """x where it is positive, else 0, with the gradient of x everywhere.

  A shut ReLU stays shut: once an image's scale had reached 0, no term could bring it back.
  """
  return jnp.maximum(x, 0.0)


@_positive.defjvp
def _positive_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
  return _positive(*primals), *tangents


@checked
def nearest_hypothesis(rotations: Float[Array, "B 4"], *, hypotheses: int) -> Int[Array, "B"]:
  """The hypothesis in whose share of the circle each view lies.

  By where hypotheses are initialized, not by where they are: otherwise one that happens to be near
  too many views would be fitted to all of them, and the others to none.

  Args:
    rotations: unit quaternions.
    hypotheses: K of `CameraHeads`, spread around the object.
  """
  turns = camera.azimuth_turns(hypotheses)
  initial = quaternion.multiply(jnp.broadcast_to(jnp.asarray([UPRIGHT]), turns.shape), turns)
  return jnp.argmax(jnp.square(jnp.einsum("bc,kc->bk", rotations, initial)), axis=-1)


@checked
def upright_rotation(
  azimuth: Float[Array, "*B"], elevation: Float[Array, "*B"], roll: Float[Array, "*B"]
) -> Float[Array, "*B 4"]:
  """The view of an upright object from around it.

  Args:
    azimuth: degrees by which the object is turned about its own vertical.
    elevation: degrees; positive shows the object's upper side.
    roll: degrees, clockwise in the image.

  Returns:
    Unit quaternions, `roll * elevation * upright * azimuth`.

  Source: Kulkarni et al. 2019 (CSM) predict azimuth, elevation and roll in this way.
  """

  def about(axis: int, degrees: Float[Array, "*B"]) -> Float[Array, "*B 4"]:
    direction = jnp.broadcast_to(jnp.eye(3, dtype=degrees.dtype)[axis], (*degrees.shape, 3))
    return quaternion.from_axis_angle(direction, jnp.deg2rad(degrees))

  # The quarter turn that aligns the object to the vertical is about x, like the elevation.
  tilted = quaternion.multiply(about(2, roll), about(0, elevation + 90.0))
  return quaternion.multiply(tilted, about(2, azimuth))
