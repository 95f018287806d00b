"""From the feature to camera hypotheses and how likely each is."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.geometry import camera, quaternion
from umr_jax.models.layers import BatchNorm, Dense, constant, leaky_relu
from umr_jax.types import checked

# A quarter turn about x: it shows an object whose vertical is z upright in an image whose y points
# down.
UPRIGHT = (math.sqrt(0.5), math.sqrt(0.5), 0.0, 0.0)
# Keeps a scale whose ReLU is shut from collapsing the mesh into a point.
_SMALLEST_SCALE = 1e-12


class CameraHeads(nn.Module):
  """Weak-perspective cameras, one or several per image.

  One hypothesis is three parallel fully connected layers. Several share a trunk of two layers, and
  each has a head of two more before its own parallel layers. All heads are computed side by side.

  Source: Li et al. 2020, supplementary 2.2; Kulkarni et al. 2019, section 3.3 (several hypotheses).
    Departs: every rotation starts near the upright view rather than anywhere or at the identity;
    hypothesis k is turned by 360 k / K degrees about the object's vertical, where the released code
    stores such turns without using them; and all hypotheses start equally likely.
  """

  hypotheses: int
  spread: bool = True  # whether the hypotheses start around the object rather than together

  @nn.compact
  @checked
  def __call__(
    self, feature: Float[Array, "B D"], *, train: bool
  ) -> tuple[Float[Array, "B K 7"], Float[Array, "B K"]]:
    """Predicts cameras.

    Args:
      feature: of the photograph.
      train: whether BatchNorm uses the batch's statistics.

    Returns:
      The hypotheses [scale, tx, ty, unit quaternion], and the logits of their probabilities.
    """
    batch, size = feature.shape
    x = feature
    if self.hypotheses > 1:
      for i in (1, 2):
        x = leaky_relu(Dense(size, name=f"trunk{i}")(x), 0.1)
    x = jnp.broadcast_to(x[:, None], (batch, self.hypotheses, size))
    if self.hypotheses > 1:
      for i in (1, 2):
        x = Dense(size, stacked=True, name=f"hidden{i}")(x)
        x = leaky_relu(BatchNorm(channel_axes=2, name=f"hidden{i}_bn")(x, train=train), 0.2)

    scale = jax.nn.relu(Dense(1, stacked=True, name="scale")(x) + 1.0) + _SMALLEST_SCALE
    translation = Dense(2, stacked=True, name="translation")(x)
    upright = constant(*UPRIGHT)
    turn = quaternion.normalize(Dense(4, stacked=True, bias_init=upright, name="quaternion")(x))
    if self.spread:
      turns = camera.azimuth_turns(self.hypotheses)
      turn = quaternion.multiply(turn, jnp.broadcast_to(turns[None], turn.shape))
    cameras = jnp.concatenate([scale, translation, turn], axis=-1)
    if self.hypotheses == 1:
      return cameras, jnp.zeros((batch, 1), feature.dtype)
    logits = Dense(1, stacked=True, kernel_init=constant(0.0), name="logit")(x)
    return cameras, logits[..., 0]
