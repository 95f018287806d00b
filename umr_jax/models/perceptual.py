"""The perceptual distance of two images: of their features in a network trained to classify."""

import os
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from umr_jax.models.convolution import convolve, max_pool
from umr_jax.models.pretrained import convolution_kernel, read_torch_file
from umr_jax.types import checked

ALEXNET_FILE = (
  "torchvision's alexnet-owt-7be5be79.pth "
  "(https://download.pytorch.org/models/alexnet-owt-7be5be79.pth)"
)
SMALLEST_IMAGE = 32

# AlexNet's convolutions: index in torchvision's `features`, stride, padding, pooled afterwards?
_LAYERS = ((0, 4, 2, True), (3, 1, 2, True), (6, 1, 1, False), (8, 1, 1, False), (10, 1, 1, False))
# Their kernels as PyTorch has them: out, in, rows, columns.
_KERNELS = ((64, 3, 11, 11), (192, 64, 5, 5), (384, 192, 3, 3), (256, 384, 3, 3), (256, 256, 3, 3))
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_EPSILON = 1e-10

AlexNet = Mapping[str, Mapping[str, Array | np.ndarray]]


def alexnet_shapes() -> dict[str, tuple[int, ...]]:
  """The tensors of torchvision's weight file that the distance reads, by name."""
  shapes: dict[str, tuple[int, ...]] = {}
  for (index, *_), kernel in zip(_LAYERS, _KERNELS, strict=True):
    shapes[f"features.{index}.weight"] = kernel
    shapes[f"features.{index}.bias"] = kernel[:1]
  return shapes


def load_perceptual(path: str | os.PathLike[str]) -> dict[str, dict[str, np.ndarray]]:
  """Reads AlexNet's convolutions from torchvision's weight file.

  Args:
    path: a .pth or .safetensors file.

  Returns:
    {"conv1" .. "conv5": {"kernel", "bias"}}.

  Raises:
    FileNotFoundError: where there is no such file; the message names its source.
    ValueError: for a file that does not hold AlexNet.
  """
  state = read_torch_file(path, obtain=ALEXNET_FILE)
  for name, shape in alexnet_shapes().items():
    found = state[name].shape if name in state else None
    if found != shape:
      raise ValueError(
        f"{path}: found {name} of shape {found}; expected AlexNet's {shape}. Give {ALEXNET_FILE}"
      )
  return {
    f"conv{i}": {
      "kernel": convolution_kernel(state[f"features.{index}.weight"]),
      "bias": state[f"features.{index}.bias"].astype(np.float32),
    }
    for i, (index, *_) in enumerate(_LAYERS, 1)
  }


@checked
def perceptual_distance(
  params: AlexNet, a: Float[Array, "B *K H W 3"], b: Float[Array, "B H W 3"]
) -> Float[Array, "B *K"]:
  """One minus the cosine of two images' features, averaged over pixels and summed over layers.

  Args:
    params: from `load_perceptual`.
    a: RGB in [0, 1]; one image for each of `b`, or K: these are compared one after the other, so
      that the features of one at a time are held, for the gradient, too.
    b: RGB in [0, 1], 32 pixels or more.

  Returns:
    One value per image of `a`, in [0, 10]; 0 for equal images.

  Raises:
    ValueError: for images smaller than 32 pixels.

  Source: Zhang et al. 2018 (uncalibrated, AlexNet), as Li et al. 2020, section 3.3 use it.
  """
  if min(b.shape[1:3]) < SMALLEST_IMAGE:
    raise ValueError(f"found images of {b.shape[1]} x {b.shape[2]}; expected 32 pixels or more")
  known = [_unit(x) for x in _features(params, b)]

  @jax.checkpoint
  def distance(a: Array) -> Array:
    total = jnp.zeros(len(a), a.dtype)
    for x, y in zip(_features(params, a), known, strict=True):
      total += jnp.mean(1.0 - jnp.sum(_unit(x) * y, axis=-1), axis=(1, 2))
    return total

  if a.ndim == b.ndim:
    return distance(a)
  return jnp.moveaxis(lax.map(distance, jnp.moveaxis(a, 1, 0)), 0, 1)


def _features(params: AlexNet, image: Array) -> list[Array]:
  """The maps after each of AlexNet's five ReLUs."""
  shift = jnp.asarray(_SHIFT, image.dtype).reshape(1, 1, 1, 3)
  scale = jnp.asarray(_SCALE, image.dtype).reshape(1, 1, 1, 3)
  x = (2.0 * image - 1.0 - shift) / scale
  features = []
  for i, (_, stride, padding, pooled) in enumerate(_LAYERS, 1):
    layer = params[f"conv{i}"]
    x = convolve(x, jnp.asarray(layer["kernel"]), stride=stride, padding=padding)
    x = jax.nn.relu(x + jnp.asarray(layer["bias"]).reshape(1, 1, 1, -1))
    features.append(x)
    if pooled:
      x = max_pool(x)
  return features


def _unit(x: Array) -> Array:
  """Every pixel's features with length one; zero where all are zero, with zero gradient."""
  square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
  return x * lax.rsqrt(square + _EPSILON)
