"""The network that cuts photographs into parts."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from umr_jax.models.encoder import IMAGENET_MEAN, IMAGENET_STD, BasicBlock
from umr_jax.models.frozen import FrozenEfficientNet
from umr_jax.models.layers import BatchNorm, Conv, enlarged, normal, normed_conv
from umr_jax.parts.resnet50 import ResNet50
from umr_jax.types import checked

NETS = ("small", "resnet50", "efficientnet")
# Pixels of the photograph per pixel of the logits, for every network.
STRIDE = 4
# Of the four parallel convolutions that read the published network's last map.
_DILATIONS = (6, 12, 18, 24)
# Channels of the small network's four stages, in widths: strides 4, 8, 16 and 32.
_STAGES = (1, 2, 4, 8)


class PartNet(nn.Module):
  """Part logits for every pixel.

  "small" learns from nothing, from a few hundred photographs, on a CPU: four residual stages and
  a decoder that adds each stage's map to the enlarged one of the stage below. "resnet50" is the
  published network, for which there are ImageNet weights. "efficientnet" is a decoder that reads
  ImageNet's features, frozen.

  Source: Hung et al. 2019 (SCOPS), section 4.1: a DeepLab with a ResNet-50. Departs: "small" and
    "efficientnet" are ours; the published network's map, whose first pixel is centred on the
    photograph's first, is read at stride 4 and at the project's pixel centres, so that one rule
    serves all networks.
  """

  num_parts: int
  kind: str = "small"  # small | resnet50 | efficientnet
  width: int = 32  # channels of the stem; 64 is the published ResNet-50
  norm: str = "group"  # batch | group; published weights are for "batch"

  @nn.compact
  @checked
  def __call__(self, images: Float[Array, "B S S 3"], *, train: bool) -> Float[Array, "B h h P1"]:
    """Predicts parts.

    Args:
      images: RGB in [0, 1]; sizes are multiples of 4.
      train: whether BatchNorm uses the batch's statistics.

    Returns:
      Logits at a quarter of the resolution, background first.

    Raises:
      ValueError: for another kind of network.
    """
    if self.kind not in NETS:
      raise ValueError(f"found network {self.kind!r}; expected one of {', '.join(NETS)}")
    if self.kind == "efficientnet":
      return self._decoder(images, train=train)
    mean = jnp.asarray(IMAGENET_MEAN, images.dtype).reshape(1, 1, 1, 3)
    std = jnp.asarray(IMAGENET_STD, images.dtype).reshape(1, 1, 1, 3)
    x = (images - mean) / std
    return self._small(x, train=train) if self.kind == "small" else self._published(x, train=train)

  def _small(self, x: Array, *, train: bool) -> Array:
    # Blocks of 4 x 4 pixels as channels: on a CPU, the gradient of a strided convolution at full
    # resolution takes longer than the rest of the network.
    batch, size = x.shape[0], x.shape[1] // STRIDE
    x = x.reshape(batch, size, STRIDE, size, STRIDE, 3).swapaxes(2, 3)
    x = x.reshape(batch, size, size, STRIDE * STRIDE * 3)
    x = jax.nn.relu(self._normed(x, self.width, "stem", size=3, train=train))
    maps = []
    for stage, factor in enumerate(_STAGES):
      name = f"stage{stage + 1}"
      x = BasicBlock(factor * self.width, 1 if stage == 0 else 2, self.norm, name=name)(
        x, train=train
      )
      maps.append(x)
    wide = self.width
    x = self._normed(maps.pop(), wide, "lateral4", size=1, train=train)
    for stage in (3, 2, 1):
      skip = self._normed(maps.pop(), wide, f"lateral{stage}", size=1, train=train)
      x = jax.nn.relu(skip + enlarged(x, skip.shape[1]))
    x = jax.nn.relu(self._normed(x, wide, "smooth", size=3, train=train))
    return self._logits(x, "logits", size=1, padding=0, dilation=1)

  def _decoder(self, images: Array, *, train: bool) -> Array:
    x = FrozenEfficientNet(name="frozen")(images)[-1]
    x = BatchNorm(name="frozen_bn")(x, train=train)
    x = jax.nn.relu(self._normed(x, 4 * self.width, "reduced", size=1, train=train))
    x = enlarged(x, images.shape[1] // STRIDE)
    x = jax.nn.relu(self._normed(x, self.width, "smooth", size=3, train=train))
    return self._logits(x, "logits", size=1, padding=0, dilation=1)

  def _published(self, x: Array, *, train: bool) -> Array:
    size = x.shape[1] // STRIDE
    x = ResNet50(self.width, norm=self.norm, name="resnet")(x, train=train)
    # The first half fed a second branch, which SCOPS does not use.
    x = x[..., x.shape[-1] // 2 :]
    logits = [self._logits(x, f"logits{d}", size=3, padding=d, dilation=d) for d in _DILATIONS]
    return _aligned(sum(logits[1:], logits[0]), size)

  def _normed(self, x: Array, features: int, name: str, *, size: int, train: bool) -> Array:
    return normed_conv(x, features, size=size, norm=self.norm, name=name, train=train)

  def _logits(self, x: Array, name: str, *, size: int, padding: int, dilation: int) -> Array:
    # Logits of order one: Adam takes long to get there from tiny kernels.
    start = normal(1.0 / (size * math.sqrt(x.shape[-1])))
    return Conv(
      self.num_parts + 1, size, 1, padding, kernel_init=start, dilation=dilation, name=name
    )(x)


def _aligned(x: Array, size: int) -> Array:
  """A map whose corner pixels are centred on the photograph's, at `size` pixels by our rule."""
  old = x.shape[1]
  # The published network enlarges with aligned corners: from the first pixel's centre, 0, to the
  # last one's, S - 1.
  pixels = size * STRIDE
  place = (np.arange(size) + 0.5) * STRIDE - 0.5
  place = place * (old - 1) / (pixels - 1)
  weights = np.maximum(0.0, 1.0 - np.abs(place[:, None] - np.arange(old)[None]))
  table = jnp.asarray(weights, x.dtype)
  return jnp.einsum("ih,bhwc,jw->bijc", table, x, table)
