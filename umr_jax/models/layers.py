"""The layers that the networks are made of, and how their parameters are initialized."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from umr_jax.models.convolution import convolve


@dataclasses.dataclass(frozen=True)
class Initializer:
  """How a parameter is initialized: independent samples, or constants.

  A flax initializer that can also sample on the host: compiling a network's initialization
  takes longer than everything else at start-up (`initialize.initialize`).
  """

  kind: str  # normal | uniform | constant
  scale: float = 0.0  # the standard deviation, or the largest absolute value
  values: tuple[float, ...] = (0.0,)  # for constants; repeated over the leading axes

  def __call__(self, key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    """Samples with JAX."""
    if self.kind == "normal":
      return self.scale * jax.random.normal(key, shape, dtype)
    if self.kind == "uniform":
      return jax.random.uniform(key, shape, dtype, -self.scale, self.scale)
    return jnp.asarray(np.broadcast_to(np.array(self.values), shape), dtype)

  def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Samples with NumPy: the same distribution, other numbers.

    Args:
      rng: the generator; it advances.
      shape: of the parameter.
    """
    if self.kind == "normal":
      return rng.standard_normal(shape, np.float32) * np.float32(self.scale)
    if self.kind == "uniform":
      return (rng.random(shape, np.float32) * 2 - 1) * np.float32(self.scale)
    return np.broadcast_to(np.array(self.values, np.float32), shape).copy()


def normal(deviation: float) -> Initializer:
  """Independent normal samples of mean zero."""
  return Initializer("normal", deviation)


def uniform(largest: float) -> Initializer:
  """Independent uniform samples from [-largest, largest]."""
  return Initializer("uniform", largest)


def constant(*values: float) -> Initializer:
  """The same numbers in every row."""
  return Initializer("constant", values=values)


def leaky_relu(x: Float[Array, "*B"], slope: float) -> Float[Array, "*B"]:
  """x where it is positive, slope x where it is not.

  Args:
    x: any array.
    slope: of the negative side.
  """
  return jnp.where(x > 0.0, x, slope * x)


class Conv(nn.Module):
  """A convolution with square kernels."""

  features: int
  size: int
  stride: int = 1
  padding: int = 0
  use_bias: bool = True
  kernel_init: Initializer = normal(0.02)
  bias_init: Initializer = constant(0.0)
  dilation: int = 1

  @nn.compact
  def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B Ho Wo D"]:
    """The convolved maps."""
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param("kernel", self.kernel_init, shape)
    x = convolve(
      x,
      jnp.asarray(kernel),
      stride=self.stride,
      padding=self.padding,
      dilation=self.dilation,
    )
    if not self.use_bias:
      return x
    bias = self.param("bias", self.bias_init, (self.features,))
    return x + bias.reshape(1, 1, 1, -1)


class Dense(nn.Module):
  """A fully connected layer, or K of them side by side where the input has K rows per image."""

  features: int
  stacked: bool = False
  kernel_init: Initializer = normal(0.02)
  bias_init: Initializer = constant(0.0)

  @nn.compact
  def __call__(self, x: Float[Array, "B *K C"]) -> Float[Array, "B *K D"]:
    """The layer's outputs."""
    leading = x.shape[1:-1] if self.stacked else ()
    kernel = self.param("kernel", self.kernel_init, (*leading, x.shape[-1], self.features))
    bias = self.param("bias", self.bias_init, (*leading, self.features))
    product = jnp.einsum("bkc,kcd->bkd", x, kernel) if self.stacked else x @ kernel
    return product + bias[None]


# Of BatchNorm's running statistics, what stays at each step; keeps variances from zero; channels a
# group of GroupNorm, at least.
_MOMENTUM, _EPSILON, _GROUP_SIZE = 0.9, 1e-5, 16


class BatchNorm(nn.Module):
  """Normalization of every channel by its mean and variance over the batch and all pixels.

  The running statistics follow the convention of the framework that the paper used: they move by a
  tenth at each step, towards the unbiased variance. On several devices each normalizes its share of
  the batch by itself.
  """

  channel_axes: int = 1  # how many trailing axes distinguish channels
  scale_init: Initializer = constant(1.0)
  bias_init: Initializer = constant(0.0)

  @nn.compact
  def __call__(self, x: Float[Array, "B *N C"], *, train: bool) -> Float[Array, "B *N C"]:
    """Normalizes with the batch's statistics in training, with the running ones otherwise."""
    shape = x.shape[-self.channel_axes :]
    axes = tuple(range(x.ndim - self.channel_axes))
    leading = (1,) * len(axes) + shape  # for broadcasting
    scale = self.param("scale", self.scale_init, shape)
    bias = self.param("bias", self.bias_init, shape)
    running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
    running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
    if train:
      mean = jnp.mean(x, axis=axes)
      # In two passes: of a channel far from zero, E[x^2] - E[x]^2 keeps no digit in float32.
      var = jnp.mean(jnp.square(x - mean.reshape(leading)), axis=axes)
      if not self.is_initializing():
        count = math.prod(x.shape[: len(axes)])
        unbiased = var * (count / max(count - 1, 1))
        running_mean.value = self._follow(running_mean.value, mean)
        running_var.value = self._follow(running_var.value, unbiased)
    else:
      mean, var = running_mean.value, running_var.value
    gain = scale * lax.rsqrt(var + _EPSILON)
    # The mean is subtracted first, for the same reason.
    return (x - mean.reshape(leading)) * gain.reshape(leading) + bias.reshape(leading)

  def _follow(self, running: Array, current: Array) -> Array:
    return _MOMENTUM * running + (1.0 - _MOMENTUM) * current


class GroupNorm(nn.Module):
  """Normalization of every image by itself: by mean and variance over groups of channels.

  It does the same in training and in evaluation. BatchNorm's running statistics fit the average
  image: measured on a ResNet trained from nothing in batches of 16, they shrank the differences
  between images a hundredfold from the first layer to the last, and every image got one camera.

  Source: Wu and He 2018.
  """

  scale_init: Initializer = constant(1.0)
  bias_init: Initializer = constant(0.0)

  @nn.compact
  def __call__(self, x: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B H W C"]:
    """Normalizes; `train` is there for BatchNorm's signature."""
    del train
    channels = x.shape[-1]
    scale = self.param("scale", self.scale_init, (channels,))
    bias = self.param("bias", self.bias_init, (channels,))
    centered = x - self._over_groups(jnp.mean(x, axis=(1, 2)))[:, None, None]
    var = self._over_groups(jnp.mean(jnp.square(centered), axis=(1, 2)))
    gain = scale[None] * lax.rsqrt(var + _EPSILON)
    return centered * gain[:, None, None] + bias.reshape(1, 1, 1, -1)

  def _over_groups(self, statistics: Float[Array, "B C"]) -> Float[Array, "B C"]:
    """The mean over each channel's group. (Over pixels first: sums along channels are slow.)"""
    batch, channels = statistics.shape
    # Equal groups, and larger ones where channels do not divide by the size of a group.
    groups = math.gcd(channels, max(1, channels // _GROUP_SIZE))
    split = statistics.reshape(batch, groups, channels // groups)
    mean = jnp.mean(split, axis=-1, keepdims=True)
    return jnp.broadcast_to(mean, split.shape).reshape(batch, channels)


NORMS = ("batch", "group")


def map_norm(kind: str, *, name: str) -> nn.Module:
  """The normalization of maps that a config names: "batch", the paper's, or "group".

  Vectors keep BatchNorm: it takes out what all images share, and nothing else in the heads does.

  Args:
    kind: batch | group.
    name: of the layer.

  Raises:
    ValueError: for another kind.
  """
  if kind not in NORMS:
    raise ValueError(f"found normalization {kind!r}; expected one of {', '.join(NORMS)}")
  return (BatchNorm if kind == "batch" else GroupNorm)(name=name)


def normed_conv(
  x: Float[Array, "B H W C"], features: int, *, size: int, norm: str, name: str, train: bool
) -> Float[Array, "B H W D"]:
  """A convolution without a bias, by He's initialization, and its normalization, `NAME_bn`.

  Called inside a compact module, whose layers these become. Maps keep their size; `size` is the
  kernel's, and odd.

  Args:
    x: maps.
    features: channels of the result.
    size: of the kernel; odd.
    norm: batch | group.
    name: of the convolution.
    train: whether BatchNorm uses the batch's statistics.
  """
  initializer = normal(math.sqrt(2.0 / (size * size * x.shape[-1])))
  padding = (size - 1) // 2
  conv = Conv(features, size, 1, padding, use_bias=False, kernel_init=initializer, name=name)
  return map_norm(norm, name=f"{name}_bn")(conv(x), train=train)


def enlarged(x: Float[Array, "B h w C"], size: int) -> Float[Array, "B H W C"]:
  """Square maps of `size` pixels a side: bilinear, by pixel centres.

  Args:
    x: square maps.
    size: pixels per side of the result.
  """
  return jax.image.resize(x, (x.shape[0], size, size, x.shape[-1]), "linear", antialias=False)
