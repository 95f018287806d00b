"""ResNet-18 and the encoder: from an image to the feature that heads read and the shape's code."""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.models.convolution import max_pool
from umr_jax.models.frozen import FrozenEfficientNet
from umr_jax.models.layers import (
  BatchNorm,
  Conv,
  Dense,
  Initializer,
  leaky_relu,
  map_norm,
  normal,
  uniform,
)
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
  `initialize` can fill them.

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
  """A convolution as this network has them: no bias, "same" padding, He's initialization."""
  initializer: Initializer = normal(math.sqrt(2.0 / (size * size * features)))
  return Conv(features, size, stride, size // 2, use_bias=False, kernel_init=initializer, name=name)


# Of the colours in [0, 1] of the images on which published encoders were trained.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Of the ResNet's map, whatever the image's size: what it is at the paper's 256 pixels.
_MAP_SIZE = 8


class Encoding(NamedTuple):
  """What the encoder predicts for B images."""

  feature: Float[Array, "B D"]  # for cameras and texture
  mu: Float[Array, "B Z"]  # the mean of the shape's code
  code: Float[Array, "B Z"]  # the shape's code: a sample around mu, or mu itself
  maps: tuple[Float[Array, "B _ _ _"], ...]  # of the backbone; the last, coarsest, is read here


class Encoder(nn.Module):
  """A backbone, a strided convolution, two fully connected layers, and the code's distribution.

  Source: Li et al. 2020, supplementary 2.2; Kanazawa et al. 2018, section 3.
    Departs: the ResNet's map is resized to 8 x 8, so that the map before the fully connected
    layers is 4 x 4 for every image size and one set of parameters serves them all. At the paper's
    256 pixels that changes nothing. (Resizing after the strided convolution instead would leave
    one cell at 96 pixels: the layout of the silhouette would be lost.) Instead of ResNet-18 the
    backbone can be a frozen EfficientNet, whose channels are brought to one scale by BatchNorm.
  """

  width: int  # channels of the ResNet's stem, and a quarter of those after the last convolution
  feature_size: int
  code_size: int
  sample_code: bool  # whether the code is sampled in training
  norm: str = "batch"  # batch | group
  backbone: str = "resnet18"  # resnet18 | efficientnet (frozen)

  @nn.compact
  @checked
  def __call__(
    self,
    images: Float[Array, "B H W 3"],
    *,
    train: bool,
    noise: Float[Array, "B Z"] | None = None,
    encoded: tuple[Float[Array, "B _ _ _"], ...] | None = None,
  ) -> Encoding:
    """Encodes images.

    Args:
      images: RGB in [0, 1].
      train: whether BatchNorm uses the batch's statistics.
      noise: standard normal, from which the code is sampled; none for the mean code.
      encoded: the images' maps of the frozen network, where they are known.

    Returns:
      The feature; the code, sampled where there is noise; and the maps: the ResNet's last one,
      which they come from, or the frozen network's at three resolutions.
    """
    maps = self._maps(images, encoded, train=train)
    x = maps[-1]
    if x.shape[1:3] != (_MAP_SIZE, _MAP_SIZE):
      shape = (x.shape[0], _MAP_SIZE, _MAP_SIZE, x.shape[-1])
      x = jax.image.resize(x, shape, "linear", antialias=False)
    x = Conv(4 * self.width, 4, 2, 1, name="conv")(x)
    x = leaky_relu(map_norm(self.norm, name="conv_bn")(x, train=train), 0.2)
    x = x.reshape(x.shape[0], -1)
    for i in (1, 2):
      x = Dense(self.feature_size, name=f"fc{i}")(x)
      x = leaky_relu(BatchNorm(name=f"fc{i}_bn")(x, train=train), 0.2)

    mu = self._code_head("mean")(x)
    if not self.sample_code:
      return Encoding(x, mu, mu, maps)
    # Made, if not used, in evaluation too: the parameters must not depend on the noise.
    log_variance = self._code_head("logvar")(x)
    code = mu if noise is None else mu + jnp.exp(0.5 * log_variance) * noise
    return Encoding(x, mu, code, maps)

  def _maps(
    self, images: Float[Array, "B H W 3"], encoded: tuple[Array, ...] | None, *, train: bool
  ) -> tuple[Array, ...]:
    if self.backbone == "efficientnet":
      *earlier, last = encoded or FrozenEfficientNet(name="frozen")(images)
      return *earlier, BatchNorm(name="frozen_bn")(last, train=train)
    mean = jnp.asarray(IMAGENET_MEAN, images.dtype).reshape(1, 1, 1, 3)
    std = jnp.asarray(IMAGENET_STD, images.dtype).reshape(1, 1, 1, 3)
    resnet = ResNet18(self.width, norm=self.norm, name="resnet")
    return (resnet((images - mean) / std, train=train),)

  def _code_head(self, name: str) -> "CodeHead":
    return CodeHead(self.feature_size, self.code_size, name=name)


class CodeHead(nn.Module):
  """Two fully connected layers towards a statistic of the code."""

  hidden_size: int
  code_size: int

  @nn.compact
  def __call__(self, x: Float[Array, "B D"]) -> Float[Array, "B Z"]:
    """The statistic."""
    sizes = {"fc1": (x.shape[-1], self.hidden_size), "fc2": (self.hidden_size, self.code_size)}
    for name, (fan_in, features) in sizes.items():
      # The default initialization of the paper's framework.
      initializer = uniform(1.0 / math.sqrt(fan_in))
      x = Dense(features, kernel_init=initializer, bias_init=initializer, name=name)(x)
      x = leaky_relu(x, 0.01) if name == "fc1" else x
    return x
