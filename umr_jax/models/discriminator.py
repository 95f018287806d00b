"""The discriminator: does an image show the object from a predicted or from a random view?"""

import math
from collections.abc import Callable, Mapping
from typing import cast

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, Float

from umr_jax.models.layers import Conv, Dense, Initializer, uniform
from umr_jax.types import checked

_CHANNELS = (32, 64, 32, 32)
# From images [B, H, W, C] to the logits [B] that they are real.
DiscriminatorFn = Callable[[Array], Array]
# Of each layer, by name.
DiscriminatorParams = Mapping[str, Mapping[str, Array | np.ndarray]]


def _torch_initializer(inputs: int) -> Initializer:
  """The initialization of a layer by its number of inputs, as in the released code's framework."""
  return uniform(1.0 / math.sqrt(inputs))


class Discriminator(nn.Module):
  """Four strided convolutions, one to a single channel, and one fully connected layer.

  Source: Li et al. 2020, supplementary 2.2; layers as released.
  """

  @nn.compact
  @checked
  def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B"]:
    """Classifies images.

    Args:
      images: silhouettes or images on black, in [0, 1].

    Returns:
      The logits that they are real.
    """
    x, channels = images, images.shape[-1]
    for i, features in enumerate(_CHANNELS):
      initializer = _torch_initializer(9 * channels)
      conv = Conv(
        features,
        3,
        stride=2,
        padding=1,
        kernel_init=initializer,
        bias_init=initializer,
        name=f"conv{i + 1}",
      )
      x, channels = jax.nn.relu(conv(x)), features
    initializer = _torch_initializer(channels)
    x = Conv(1, 1, kernel_init=initializer, bias_init=initializer, name="map")(x).reshape(
      len(x), -1
    )
    initializer = _torch_initializer(x.shape[-1])
    return Dense(1, kernel_init=initializer, bias_init=initializer, name="logit")(x)[:, 0]


def make_discriminator(params: DiscriminatorParams) -> DiscriminatorFn:
  """The discriminator with these parameters, as a function of images."""

  def discriminator(images: Array) -> Array:
    return cast(Array, Discriminator().apply({"params": params}, images))

  return discriminator
