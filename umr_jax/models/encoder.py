"""From a photograph to the feature that every head reads, and to the shape's code."""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.models.frozen import FrozenEfficientNet
from umr_jax.models.layers import BatchNorm, Conv, Dense, leaky_relu, map_norm, uniform
from umr_jax.models.resnet import ResNet18
from umr_jax.types import checked

# Of the colours in [0, 1] of the photographs on which published encoders were trained.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Of the ResNet's map, whatever the image's size: what it is at the paper's 256 pixels.
_MAP_SIZE = 8


class Encoding(NamedTuple):
  """What the encoder says of B photographs."""

  feature: Float[Array, "B D"]  # for cameras and texture
  mu: Float[Array, "B Z"]  # the mean of the shape's code
  code: Float[Array, "B Z"]  # the shape's code: a draw around mu, or mu itself
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
  sample_code: bool  # whether the code is a draw in training
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
  ) -> Encoding:
    """Encodes photographs.

    Args:
      images: RGB in [0, 1].
      train: whether BatchNorm uses the batch's statistics.
      noise: standard normal, what the code's draw is made of; none for the mean code.

    Returns:
      The feature, the code, drawn where there is noise, and the maps: the ResNet's last one, which
      they come from, or the frozen network's at three resolutions.
    """
    maps = self._maps(images, train=train)
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

  def _maps(self, images: Float[Array, "B H W 3"], *, train: bool) -> tuple[Array, ...]:
    if self.backbone == "efficientnet":
      *finer, last = FrozenEfficientNet(name="frozen")(images)
      return *finer, BatchNorm(name="frozen_bn")(last, train=train)
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
      # The default start of the paper's framework.
      start = uniform(1.0 / math.sqrt(fan_in))
      x = Dense(features, kernel_init=start, bias_init=start, name=name)(x)
      x = leaky_relu(x, 0.01) if name == "fc1" else x
    return x
