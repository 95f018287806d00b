"""Published weights for the part network."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from umr_jax.models.pretrained import BATCH_NORM, fill
from umr_jax.parts.resnet50 import BLOCKS

RESNET50_FILES = (
  "torchvision's resnet50-0676ba61.pth (https://download.pytorch.org/models/resnet50-0676ba61.pth)"
)


def resnet50_variables(
  state: Mapping[str, np.ndarray], params: Mapping[str, Any], batch_stats: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
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
  new_params = traverse_util.flatten_dict(params)
  new_stats = traverse_util.flatten_dict(batch_stats)
  first = ("resnet", "conv1", "kernel")
  if first not in new_params:
    raise ValueError("these weights fit parts.net=resnet50 alone")
  if "conv1.weight" not in state or "layer4.2.bn3.weight" not in state:
    some = ", ".join(sorted(state)[:3])
    raise ValueError(f"found tensors {some}, ...; expected a ResNet-50's. Give {RESNET50_FILES}")
  found, width = state["conv1.weight"].shape[0], new_params[first].shape[-1]
  if found != width:
    raise ValueError(
      f"the weight file's ResNet-50 has width {found}, the config's {width}: set "
      f"parts.net_width={found}, or parts.net_weights=none"
    )
  for source, target in _layer_names().items():
    if "bn" in target[-1]:
      for suffix, leaf in BATCH_NORM.items():
        tree = new_params if leaf in ("scale", "bias") else new_stats
        path = ("resnet", *target, leaf)
        fill(tree, path, state, f"{source}.{suffix}", network="ResNet-50")
    else:
      path = ("resnet", *target, "kernel")
      fill(new_params, path, state, f"{source}.weight", network="ResNet-50")
  return traverse_util.unflatten_dict(new_params), traverse_util.unflatten_dict(new_stats)


def _layer_names() -> dict[str, tuple[str, ...]]:
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
