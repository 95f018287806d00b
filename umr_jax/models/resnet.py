"""The residual network with 18 layers, without its classifier."""

import math

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from umr_jax.models.layers import Conv, Start, map_norm, max_pool, normal
from umr_jax.types import checked

BLOCKS = (2, 2, 2, 2)


class BasicBlock(nn.Module):
  """Two 3 x 3 convolutions beside a shortcut."""

  features: int
  stride: int
  norm: str

  @nn.compact
  def __call__(self, x: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B Ho Wo D"]:
    """The block's maps, smaller by its stride."""
    shortcut = x
    x = _conv(self.features, 3, self.stride, "conv1")(x)
    x = jax.nn.relu(map_norm(self.norm, name="bn1")(x, train=train))
    x = _conv(self.features, 3, 1, "conv2")(x)
    x = map_norm(self.norm, name="bn2")(x, train=train)
    if shortcut.shape != x.shape:
      shortcut = _conv(self.features, 1, self.stride, "downsample_conv")(shortcut)
      shortcut = map_norm(self.norm, name="downsample_bn")(shortcut, train=train)
    return jax.nn.relu(x + shortcut)


class ResNet18(nn.Module):
  """ResNet-18 up to its last residual block.

  Parameters are named after torchvision's (`layer1.0.conv1` is `layer1_0`, `conv1`), so that
  `pretrained` can fill them.

  Source: He et al. 2016, which Li et al. 2020, supplementary 2.2, name as the encoder.
  """

  width: int  # channels of the stem; 64 is the published network
  norm: str = "batch"  # batch | group; published weights are for "batch"

  @nn.compact
  @checked
  def __call__(self, images: Float[Array, "B H W 3"], *, train: bool) -> Float[Array, "B h w C"]:
    """Features at a 32nd of the resolution.

    Args:
      images: normalized as for ImageNet.
      train: whether BatchNorm uses, and remembers, the batch's statistics.

    Returns:
      8 * width channels; sizes are rounded up.
    """
    x = _conv(self.width, 7, 2, "conv1")(images)
    x = max_pool(jax.nn.relu(map_norm(self.norm, name="bn1")(x, train=train)), padding=1)
    for stage, blocks in enumerate(BLOCKS):
      for block in range(blocks):
        features, stride = self.width * 2**stage, 2 if stage > 0 and block == 0 else 1
        name = f"layer{stage + 1}_{block}"
        x = BasicBlock(features, stride, self.norm, name=name)(x, train=train)
    return x


def _conv(features: int, size: int, stride: int, name: str) -> Conv:
  """A convolution as this network has them: no bias, "same" padding, He's start."""
  start: Start = normal(math.sqrt(2.0 / (size * size * features)))
  return Conv(features, size, stride, size // 2, use_bias=False, kernel_init=start, name=name)
