"""VGG-16 and VGG-19, whose middle layers are common features for correspondence."""

import os
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from umr_jax.models.convolution import convolve
from umr_jax.models.encoder import IMAGENET_MEAN, IMAGENET_STD
from umr_jax.models.pretrained import convolution_kernel, read_torch_file
from umr_jax.types import checked

VGG_FILES = {
  16: "torchvision's vgg16-397923af.pth (https://download.pytorch.org/models/vgg16-397923af.pth)",
  19: "torchvision's vgg19-dcbb9e9d.pth (https://download.pytorch.org/models/vgg19-dcbb9e9d.pth)",
}

# Convolutions in each of the five blocks, and their channels.
_BLOCKS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_CHANNELS = (64, 128, 256, 512, 512)

# Of each convolution, and of the input, by name.
VGG = Mapping[str, Mapping[str, Array | np.ndarray]]


def load_vgg(path: str | os.PathLike[str], *, depth: int) -> dict[str, dict[str, np.ndarray]]:
  """Reads VGG's convolutions from torchvision's weight file.

  Args:
    path: a .pth or .safetensors file.
    depth: 16 or 19.

  Returns:
    {"conv1_1" .. "conv5_4": {"kernel", "bias"}, "input": {"shift", "scale"}}.

  Raises:
    FileNotFoundError: where there is no such file; the message names its source.
    ValueError: for a file that does not hold a VGG of this depth.
  """
  obtain = VGG_FILES[depth]
  state = read_torch_file(
    path, obtain=obtain, otherwise="set the features to 'encoder', which need no file"
  )
  convolutions = [name for name in state if name.startswith("features.") and state[name].ndim == 4]
  if len(convolutions) != sum(_BLOCKS[depth]):
    raise ValueError(
      f"{path} holds {len(convolutions)} convolutions in 'features'; expected VGG-{depth}'s "
      f"{sum(_BLOCKS[depth])}. Give {obtain}"
    )
  params = {
    "input": {
      "shift": np.array(IMAGENET_MEAN, np.float32),
      "scale": np.array(IMAGENET_STD, np.float32),
    }
  }
  index = 0
  for block, count in enumerate(_BLOCKS[depth], 1):
    for i in range(1, count + 1):
      weight, bias = (state.get(f"features.{index}.{key}") for key in ("weight", "bias"))
      if weight is None or bias is None or weight.shape[::2] != (_CHANNELS[block - 1], 3):
        found = None if weight is None else weight.shape
        raise ValueError(
          f"{path}: found features.{index}.weight of shape {found}; expected VGG-{depth}'s "
          f"{_CHANNELS[block - 1]} kernels of 3 x 3. Give {obtain}"
        )
      params[f"conv{block}_{i}"] = {
        "kernel": convolution_kernel(weight),
        "bias": bias.astype(np.float32),
      }
      index += 2
    index += 1  # the pooling
  return params


@checked
def vgg_features(
  params: VGG, images: Float[Array, "B H W 3"], *, layers: tuple[str, ...]
) -> Float[Array, "B h w C"]:
  """The maps after the ReLUs of some convolutions, side by side.

  Args:
    params: from `load_vgg`.
    images: RGB in [0, 1].
    layers: names such as "conv5_2". Maps that are finer than the coarsest are max-pooled to it.

  Returns:
    The maps; block b's are at a 2**(b-1)th of the resolution, rounded down.

  Raises:
    ValueError: for a layer that the network does not have.

  Source: Simonyan and Zisserman 2015.
  """
  missing = sorted(set(layers) - (set(params) - {"input"}))
  if missing or not layers:
    raise ValueError(f"found layers {missing}; expected some of {sorted(set(params) - {'input'})}")
  shift, scale = (
    jnp.asarray(params["input"][key]).reshape(1, 1, 1, 3) for key in ("shift", "scale")
  )
  x = (images - shift) / scale
  maps: list[Array] = []
  block = 1
  for name in sorted(set(params) - {"input"}):
    if int(name[4]) > block:
      x, maps = _pool(x), [_pool(m) for m in maps]
      block += 1
    layer = params[name]
    x = convolve(x, jnp.asarray(layer["kernel"]), padding=1)
    x = jax.nn.relu(x + jnp.asarray(layer["bias"]).reshape(1, 1, 1, -1))
    if name in layers:
      maps.append(x)
    if name == max(layers):
      break
  return jnp.concatenate(maps, axis=-1)


def _pool(x: Array) -> Array:
  """The largest of each 2 x 2 pixels."""
  rows, columns = (n // 2 * 2 for n in x.shape[1:3])
  x = jnp.maximum(x[:, 0:rows:2], x[:, 1:rows:2])
  return jnp.maximum(x[:, :, 0:columns:2], x[:, :, 1:columns:2])
