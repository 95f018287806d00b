"""A small network with a map of features of an image, to be trained from scratch."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from umr_jax.models.layers import Conv, GroupNorm, normal
from umr_jax.types import checked

STRIDE = 8
_EPSILON = 1e-6


class DenseEncoder(nn.Module):
  """Blocks of pixels become channels, then residual blocks whose reach grows to the whole object.

  No convolution has a stride: XLA for CPUs is slow at their gradients. A cell of the map lies
  centred on its 8 x 8 pixels.
  """

  width: int = 32
  features: int = 64
  blocks: int = 4

  @nn.compact
  @checked
  def __call__(self, images: Float[Array, "B H W 3"], *, train: bool) -> Float[Array, "B h w C"]:
    """Non-negative features of length one, at an eighth of the resolution.

    Args:
      images: RGB in [0, 1]; sides are multiples of 8.
      train: of no effect; for the signature of the other networks.

    Returns:
      The maps.
    """
    x = 4.0 * images - 2.0
    for i, (block, width) in enumerate(((4, self.width), (1, self.width), (2, 2 * self.width)), 1):
      x = _conv(width, 3, f"first{i}")(blocks_as_channels(x, block))
      x = jax.nn.relu(GroupNorm(name=f"norm{i}")(x, train=train))
    for i in range(1, self.blocks + 1):
      y = _conv(2 * self.width, 3, f"conv{i}_1")(x)
      y = jax.nn.relu(GroupNorm(name=f"norm{i}_1")(y, train=train))
      y = _conv(2 * self.width, 3, f"conv{i}_2")(y)
      x = jax.nn.relu(x + GroupNorm(name=f"norm{i}_2")(y, train=train))
    x = jax.nn.relu(_conv(self.features, 1, "last")(x) + 0.1)
    return x * lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + _EPSILON)


def _conv(features: int, size: int, name: str) -> Conv:
  """A convolution without bias, "same" padding, by He's initialization."""
  deviation = math.sqrt(2.0 / (size * size * features))
  initializer = normal(deviation)
  return Conv(features, size, 1, size // 2, use_bias=False, kernel_init=initializer, name=name)


@checked
def blocks_as_channels(x: Float[Array, "B H W C"], side: int) -> Float[Array, "B h w D"]:
  """Every square of pixels as one pixel with all their channels.

  Args:
    x: maps, whose height and width are multiples of `side`.
    side: pixels per side of a square.

  Returns:
    Maps of side * side * C channels: rows first, then columns, then C.
  """
  count, height, width, channels = x.shape
  x = x.reshape(count, height // side, side, width // side, side, channels)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(count, height // side, width // side, side * side * channels)
