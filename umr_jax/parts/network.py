"""The part network: a small one, the published ResNet-50 with its weights, or a decoder."""

import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Float

from umr_jax.models.convolution import max_pool
from umr_jax.models.encoder import IMAGENET_MEAN, IMAGENET_STD, BasicBlock
from umr_jax.models.frozen import FrozenEfficientNet
from umr_jax.models.initialize import filled_layers
from umr_jax.models.layers import BatchNorm, Conv, enlarged, map_norm, normal, normed_conv
from umr_jax.types import Variables, checked

BLOCKS = (3, 4, 6, 3)
# Of the stages: how many pixels the first block skips, and how far apart the kernels read.
_STRIDES, _STAGE_DILATIONS = (1, 2, 1, 1), (1, 1, 2, 4)
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
        features, dilation = self.width * 2**stage, _STAGE_DILATIONS[stage]
        name = f"layer{stage + 1}_{block}"
        x = Bottleneck(features, stride, dilation, self.norm, name=name)(x, train=train)
    return x


def _conv(features: int, size: int, name: str, *, stride: int = 1, dilation: int = 1) -> Conv:
  """A convolution as this network has them: no bias, "same" padding, He's initialization."""
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


NETS = ("small", "resnet50", "efficientnet")
# Pixels of the image per pixel of the logits, for every network.
STRIDE = 4
# Of the four parallel convolutions that read the published network's last map.
_DILATIONS = (6, 12, 18, 24)
# Channels of the small network's four stages, in widths: strides 4, 8, 16 and 32.
_STAGES = (1, 2, 4, 8)


class PartNet(nn.Module):
  """Part logits for every pixel.

  "small" is trained from scratch on a few hundred images, on a CPU: four residual stages and
  a decoder that adds each stage's map to the enlarged one of the stage below. "resnet50" is the
  published network, for which there are ImageNet weights. "efficientnet" is a decoder that reads
  ImageNet's features, frozen.

  Source: Hung et al. 2019 (SCOPS), section 4.1: a DeepLab with a ResNet-50. Departs: "small" and
    "efficientnet" are ours; the published network's map, whose first pixel is centred on the
    image's first, is read at stride 4 and at the project's pixel centres, so that one rule
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
    initializer = normal(1.0 / (size * math.sqrt(x.shape[-1])))
    return Conv(
      self.num_parts + 1, size, 1, padding, kernel_init=initializer, dilation=dilation, name=name
    )(x)


def _aligned(x: Array, size: int) -> Array:
  """A map whose corner pixels are centred on the image's, at `size` pixels by our rule."""
  old = x.shape[1]
  # The published network enlarges with aligned corners: from the first pixel's centre, 0, to the
  # last one's, S - 1.
  pixels = size * STRIDE
  place = (np.arange(size) + 0.5) * STRIDE - 0.5
  place = place * (old - 1) / (pixels - 1)
  weights = np.maximum(0.0, 1.0 - np.abs(place[:, None] - np.arange(old)[None]))
  table = jnp.asarray(weights, x.dtype)
  return jnp.einsum("ih,bhwc,jw->bijc", table, x, table)


RESNET50_FILES = (
  "torchvision's resnet50-0676ba61.pth (https://download.pytorch.org/models/resnet50-0676ba61.pth)"
)


def resnet50_variables(
  state: Mapping[str, np.ndarray], params: Variables, batch_stats: Variables
) -> tuple[Variables, Variables]:
  """Puts a ResNet-50 of torchvision into a `PartNet`.

  Args:
    state: the state dict; its classifier is ignored.
    params: of a `PartNet` of kind "resnet50" with BatchNorm. Not changed.
    batch_stats: its statistics. Not changed.

  Returns:
    New parameters and statistics, with the ResNet filled.

  Raises:
    ValueError: for a state dict that lacks a tensor, or of a network of another width or depth.

  Source: Hung et al. 2019 (SCOPS), section 4.1: the network starts from ImageNet.
  """
  flat, first = traverse_util.flatten_dict(params), ("resnet", "conv1", "kernel")
  if first not in flat:
    raise ValueError("these weights fit parts.net=resnet50 alone")
  if "conv1.weight" not in state or "layer4.2.bn3.weight" not in state:
    some = ", ".join(sorted(state)[:3])
    raise ValueError(f"found tensors {some}, ...; expected a ResNet-50's. Give {RESNET50_FILES}")
  found, width = state["conv1.weight"].shape[0], flat[first].shape[-1]
  if found != width:
    raise ValueError(
      f"the weight file's ResNet-50 has width {found}, the config's {width}: set "
      f"parts.net_width={found}, or parts.net_weights=none"
    )
  layers = {source: ("resnet", *path) for source, path in _resnet50_layers().items()}
  return filled_layers(state, params, batch_stats, layers, network="ResNet-50")


def _resnet50_layers() -> dict[str, tuple[str, ...]]:
  """torchvision's name of every layer, and where it is in `ResNet50`."""
  names: dict[str, tuple[str, ...]] = {"conv1": ("conv1",), "bn1": ("bn1",)}
  for stage, blocks in enumerate(BLOCKS, 1):
    for block in range(blocks):
      source, target = f"layer{stage}.{block}", f"layer{stage}_{block}"
      for number in (1, 2, 3):
        names[f"{source}.conv{number}"] = (target, f"conv{number}")
        names[f"{source}.bn{number}"] = (target, f"bn{number}")
      if block == 0:
        names[f"{source}.downsample.0"] = (target, "downsample_conv")
        names[f"{source}.downsample.1"] = (target, "downsample_bn")
  return names
