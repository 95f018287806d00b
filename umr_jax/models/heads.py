"""The heads of shape, texture flow and silhouette; those of cameras are in `camera_heads`."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from umr_jax.models.convolution import convolve
from umr_jax.models.layers import (
  BatchNorm,
  Conv,
  Dense,
  Initializer,
  constant,
  enlarged,
  leaky_relu,
  map_norm,
  normal,
  normed_conv,
)
from umr_jax.types import checked


class ShapeHead(nn.Module):
  """One fully connected layer.

  It stays a single layer with a bias, `offsets`: an M-step moves the mean shape from that bias into
  the template without changing any instance.

  Source: Li et al. 2020, supplementary 2.2.
    Departs: the bias starts at zero, so that the first shapes are the template. The released code
    leaves its framework's default, a fixed jitter of about 0.03 object units.
  """

  num_half: int

  @nn.compact
  @checked
  def __call__(self, code: Float[Array, "B Z"]) -> Float[Array, "B Vh 3"]:
    """The offsets of the learned half of the vertices, in object units."""
    x = Dense(3 * self.num_half, kernel_init=normal(1e-4), name="offsets")(code)
    return x.reshape(-1, self.num_half, 3)


STEMS = ("conv", "dense")
_STEM_HEIGHT = 4
_LAST_CHANNELS = 8


class TextureHead(nn.Module):
  """A stem that lays the feature out as a 4 x 8 map, and up-convolutions to the UV map's size.

  Each up-convolution doubles the size and halves the channels, down to 8; a UV height of 128 takes
  five, from 256 channels. It is initialized to a flow near zero: every point samples the centre of
  the image, and losses must spread it.

  Source: Li et al. 2020, supplementary 2.2; Kanazawa et al. 2018, section 3.2.
    Departs: the "conv" stem leaves out the second of the paper's two fully connected layers, three
    quarters of all parameters; the "dense" stem has both. Borders are padded with zeros everywhere.
  """

  uv_height: int  # a power of two, 8 or more
  stem: str  # conv | dense
  norm: str = "batch"  # batch | group

  @nn.compact
  @checked
  def __call__(self, feature: Float[Array, "B D"], *, train: bool) -> Float[Array, "B Hu Wu 2"]:
    """Predicts the flow map.

    Args:
      feature: of the image.
      train: whether BatchNorm uses the batch's statistics.

    Returns:
      Image positions (x, y) in [-1, 1].

    Raises:
      ValueError: for an unknown stem, or a height that doubling 4 does not reach.
    """
    doublings = count_doublings(self.uv_height)
    if self.stem not in STEMS:
      raise ValueError(f"found texture stem {self.stem!r}; expected one of {', '.join(STEMS)}")
    channels = _LAST_CHANNELS * 2**doublings
    x = feature
    for i in range(1 if self.stem == "conv" else 2):
      x = Dense(_STEM_HEIGHT * 2 * _STEM_HEIGHT * channels, name=f"fc{i + 1}")(x)
      x = leaky_relu(BatchNorm(name=f"fc{i + 1}_bn")(x, train=train), 0.2)
    x = x.reshape(-1, _STEM_HEIGHT, 2 * _STEM_HEIGHT, channels)
    for i in range(doublings):
      channels //= 2
      x = leaky_relu(UpConv(channels, name=f"up{i + 1}_conv1")(x), 0.2)
      x = Conv(channels, 3, padding=1, name=f"up{i + 1}_conv2")(x)
      x = leaky_relu(map_norm(self.norm, name=f"up{i + 1}_bn")(x, train=train), 0.2)
    return jnp.tanh(Conv(2, 3, padding=1, name="flow")(x))


class UpConv(nn.Module):
  """Bilinear doubling of a map, then a 3 x 3 convolution, in one.

  Both are linear, so that each of the four phases of the doubled map is one 3 x 3 convolution of
  the small map. That is as many multiplications, but the large map is never made: three times
  faster on a CPU.
  """

  features: int
  kernel_init: Initializer = normal(0.02)
  bias_init: Initializer = constant(0.0)

  @nn.compact
  def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
    """The convolved map of twice the size."""
    shape = (3, 3, x.shape[-1], self.features)
    kernel = jnp.asarray(self.param("kernel", self.kernel_init, shape))
    bias = self.param("bias", self.bias_init, (self.features,))
    x = convolve(x, _phase_kernel(kernel), padding=1) + jnp.tile(bias, 4).reshape(1, 1, 1, -1)
    return depth_to_space(x)


def count_doublings(uv_height: int) -> int:
  """How many times 4 is doubled to reach the UV map's height.

  Raises:
    ValueError: for a height that is not 8, 16, 32, ...
  """
  doublings = (uv_height // _STEM_HEIGHT).bit_length() - 1
  if doublings < 1 or _STEM_HEIGHT * 2**doublings != uv_height:
    raise ValueError(f"found uv_height {uv_height}; expected a power of two, 8 or more")
  return doublings


@checked
def depth_to_space(x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
  """Lays the channels (row phase, column phase, D) of a map out as a map of twice the size."""
  batch, height, width, channels = x.shape
  x = x.reshape(batch, height, width, 2, 2, channels // 4).transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(batch, 2 * height, 2 * width, channels // 4)


def _phase_kernel(kernel: Array) -> Array:
  """The kernel on the small map, [3, 3, C, 4 D], of doubling followed by `kernel`."""
  # For each phase of a doubled axis: how much tap k reads of the small map at offset i - 1.
  taps = np.zeros((2, 3, 3), np.float32)
  for phase in range(2):
    for k in range(3):
      cell, half = divmod(phase + k - 1, 2)
      # The doubled pixel lies a quarter of a small pixel before or after that pixel's centre.
      taps[phase, cell + 1, k] += 0.75
      taps[phase, cell + (0 if half == 0 else 2), k] += 0.25
  joint = jnp.einsum("aik,bjl,klcd->ijcabd", taps, taps, kernel, precision="highest")
  return joint.reshape(3, 3, kernel.shape[2], -1)


# Every cell of the map, 32 pixels of the image wide, predicts this many rows and columns.
BLOCK = 16


class MaskHead(nn.Module):
  """Each cell of the encoder's map predicts its own block of the silhouette, by one linear layer.

  No other head reads the prediction. Through the mesh, the loss of a pixel
  backpropagates to the encoder by way of a vertex, a camera and the outline that both give; here to
  the cell whose receptive field holds it.

  Departs: the paper's network has no such head.
  """

  @nn.compact
  @checked
  def __call__(self, layout: Float[Array, "B h w C"]) -> Float[Array, "B H W"]:
    """Predicts silhouettes.

    Args:
      layout: the encoder's last map.

    Returns:
      Logits; H is 16 h, half the image's size where that is a multiple of 32.
    """
    batch, rows, columns, _ = layout.shape
    x = Conv(BLOCK * BLOCK, 1, name="conv")(layout)
    x = x.reshape(batch, rows, columns, BLOCK, BLOCK).swapaxes(2, 3)
    return x.reshape(batch, rows * BLOCK, columns * BLOCK)


# Channels where the maps are finest; twice as many at each coarser one.
_WIDTH = 16


class MaskDecoder(nn.Module):
  """A feature pyramid: coarse maps locate the object, fine ones its outline.

  Each step enlarges the map and adds the next finer one to it. No other head reads the
  prediction; meshes are fitted to it after training (`umr_jax.predict.test_time`).

  Source: Lin et al. 2017, "Feature Pyramid Networks". Departs: the paper of UMR has no such head.
  """

  norm: str = "group"  # batch | group

  @nn.compact
  @checked
  def __call__(
    self, maps: tuple[Float[Array, "B _ _ _"], ...], *, train: bool
  ) -> Float[Array, "B H W"]:
    """Predicts silhouettes.

    Args:
      maps: square ones of the backbone, the finest first.
      train: whether BatchNorm uses the batch's statistics.

    Returns:
      Logits of a pixel being the object's, as many as the finest map has cells.
    """
    *skips, x = maps
    level = len(skips)
    x = self._convolved(x, level, train=train)
    for level, skip in reversed(list(enumerate(skips))):
      wide = _WIDTH << level
      # Channels of the frozen network have scales of their own.
      skip = BatchNorm(name=f"map{level}_bn")(skip, train=train)
      skip = normed_conv(skip, wide, size=1, norm=self.norm, name=f"lateral{level}", train=train)
      x = normed_conv(x, wide, size=1, norm=self.norm, name=f"above{level}", train=train)
      x = self._convolved(jax.nn.relu(skip + enlarged(x, skip.shape[1])), level, train=train)
    # Undecided at first, but with a gradient for all that lies below.
    return Conv(1, 1, kernel_init=normal(0.1), name="logits")(x)[..., 0]

  def _convolved(self, x: Array, level: int, *, train: bool) -> Array:
    name = f"smooth{level}"
    return jax.nn.relu(
      normed_conv(x, _WIDTH << level, size=3, norm=self.norm, name=name, train=train)
    )
