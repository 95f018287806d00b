"""The residual network with 50 layers and dilated last stages, as segmentation uses it."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.models.layers import Conv, map_norm, max_pool, normal
from umr_jax.types import checked

BLOCKS = (3, 4, 6, 3)
# Of the stages: how many pixels the first block skips, and how far apart the kernels read.
_STRIDES, _DILATIONS = (1, 2, 1, 1), (1, 1, 2, 4)
# A block gives this many times the channels that its middle has.
EXPANSION = 4


class Bottleneck(nn.Module):
  """A 3 x 3 convolution between two 1 x 1, beside a shortcut."""

  features: int  # of the middle
  stride: int
  dilation: int
  norm: str

  @nn.compact
  def __call__(self, x: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B Ho Wo D"]:
    """The block's maps, smaller by its stride."""
    wide = EXPANSION * self.features
    shortcut = x
    x = _conv(self.features, 1, "conv1")(x)
    x = jax.nn.relu(map_norm(self.norm, name="bn1")(x, train=train))
    x = _conv(self.features, 3, "conv2", stride=self.stride, dilation=self.dilation)(x)
    x = jax.nn.relu(map_norm(self.norm, name="bn2")(x, train=train))
    x = map_norm(self.norm, name="bn3")(_conv(wide, 1, "conv3")(x), train=train)
    if shortcut.shape != x.shape:
      shortcut = _conv(wide, 1, "downsample_conv", stride=self.stride)(shortcut)
      shortcut = map_norm(self.norm, name="downsample_bn")(shortcut, train=train)
    return jax.nn.relu(x + shortcut)


class ResNet50(nn.Module):
  """ResNet-50 at an eighth of the resolution: its last two stages dilate instead of striding.

  Parameters are named after torchvision's (`layer1.0.conv1` is `layer1_0`, `conv1`).

  Source: Hung et al. 2019 (SCOPS), section 4.1; Chen et al. 2017 (DeepLab). Departs: a block that
    strides does so in its 3 x 3 convolution, as torchvision's weights expect; the published
    weights, ported from another framework, stride in the 1 x 1 before it.
  """

  width: int  # channels of the stem; 64 is the published network
  norm: str = "batch"  # batch | group; published weights are for "batch"

  @nn.compact
  @checked
  def __call__(self, images: Float[Array, "B H W 3"], *, train: bool) -> Float[Array, "B h w C"]:
    """Features.

    Args:
      images: normalized as for ImageNet.
      train: whether BatchNorm uses, and remembers, the batch's statistics.

    Returns:
      32 * width channels; of S pixels a multiple of 8, S / 8 + 1 remain.
    """
    x = _conv(self.width, 7, "conv1", stride=2)(images)
    x = jax.nn.relu(map_norm(self.norm, name="bn1")(x, train=train))
    # "Ceil mode": an even size has one more window, which reaches beyond the border.
    even = [(0, 1 - n % 2) for n in x.shape[1:3]]
    x = max_pool(jnp.pad(x, ((0, 0), *even, (0, 0))), padding=1)
    for stage, blocks in enumerate(BLOCKS):
      for block in range(blocks):
        stride = _STRIDES[stage] if block == 0 else 1
        features, dilation = self.width * 2**stage, _DILATIONS[stage]
        name = f"layer{stage + 1}_{block}"
        x = Bottleneck(features, stride, dilation, self.norm, name=name)(x, train=train)
    return x


def _conv(features: int, size: int, name: str, *, stride: int = 1, dilation: int = 1) -> Conv:
  """A convolution as this network has them: no bias, "same" padding, He's start."""
  return Conv(
    features,
    size,
    stride,
    dilation * (size // 2),
    use_bias=False,
    kernel_init=normal(math.sqrt(2.0 / (size * size * features))),
    dilation=dilation,
    name=name,
  )
