"""Published weights from files, without the framework that wrote them."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from umr_jax.models.resnet import BLOCKS
from umr_jax.models.torch_pickle import read_torch_pickle

RESNET18_FILES = (
  "torchvision's resnet18-f37072fd.pth (https://download.pytorch.org/models/resnet18-f37072fd.pth) "
  "or timm's model.safetensors (https://huggingface.co/timm/resnet18.a1_in1k)"
)

# What PyTorch calls the entries of a BatchNorm, and what `layers.BatchNorm` does.
BATCH_NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}


def weight_file(
  path: str | os.PathLike[str],
  *,
  obtain: str = RESNET18_FILES,
  otherwise: str = "set the weights to 'none' to start from random parameters",
) -> pathlib.Path:
  """The file that a setting names.

  Args:
    path: the file; `~` and environment variables are expanded.
    obtain: what to say to someone whose file is missing.
    otherwise: what to tell them to do if they cannot get it.

  Raises:
    FileNotFoundError: where there is no such file.
  """
  file = pathlib.Path(os.path.expandvars(os.path.expanduser(path)))
  if not file.is_file():
    raise FileNotFoundError(
      f"found no weight file at {file}. Download {obtain} and give its path, or {otherwise}"
    )
  return file


def read_torch_file(
  path: str | os.PathLike[str],
  **missing: str,
) -> dict[str, np.ndarray]:
  """Reads a PyTorch state dict: a .safetensors file, or a .pth file of any PyTorch.

  A .pth file is a pickle, which can run any program when it is loaded. This reader knows the names
  that a state dict of tensors needs and refuses every other.

  Args:
    path: the file; `~` and environment variables are expanded.
    **missing: what `weight_file` says to someone whose file is missing.

  Returns:
    Arrays by name, without a leading "module." or "model." that training scripts leave.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: for a file of another format, or that names anything but tensors;
      `pickle.UnpicklingError` never escapes.
  """
  file = weight_file(path, **missing)
  if file.suffix == ".safetensors":
    return _strip(_read_safetensors(file))
  return _strip(read_torch_pickle(file))


def resnet18_variables(
  state: Mapping[str, np.ndarray], params: Mapping[str, Any], batch_stats: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Puts a ResNet-18 of torchvision or timm into a `UMRNet`'s encoder.

  Args:
    state: the state dict; its classifier is ignored.
    params: the network's parameters. Not changed.
    batch_stats: the network's BatchNorm statistics. Not changed.

  Returns:
    New parameters and statistics, with the encoder's ResNet filled.

  Raises:
    ValueError: for a state dict that lacks a tensor, or of a network of another width or depth.

  Source: Li et al. 2020, supplementary 2.2: the encoder starts from ImageNet.
  """
  new_params = traverse_util.flatten_dict(params)
  new_stats = traverse_util.flatten_dict(batch_stats)
  _check_width(state, new_params["encoder", "resnet", "conv1", "kernel"].shape[-1])
  for source, target in _layer_names().items():
    path = ("encoder", "resnet", *target)
    if target[-1].endswith("bn") or target[-1].startswith("bn"):
      for suffix, leaf in BATCH_NORM.items():
        tree = new_params if leaf in ("scale", "bias") else new_stats
        fill(tree, (*path, leaf), state, f"{source}.{suffix}")
    else:
      fill(new_params, (*path, "kernel"), state, f"{source}.weight")
  return traverse_util.unflatten_dict(new_params), traverse_util.unflatten_dict(new_stats)


def convolution_kernel(weight: np.ndarray) -> np.ndarray:
  """A PyTorch kernel [out, in, row, column] as [row, column, in, out], float32."""
  return np.ascontiguousarray(weight.transpose(2, 3, 1, 0), np.float32)


def _layer_names() -> dict[str, tuple[str, ...]]:
  """torchvision's name of every layer, and where it is in `ResNet18`."""
  names: dict[str, tuple[str, ...]] = {"conv1": ("conv1",), "bn1": ("bn1",)}
  for stage, blocks in enumerate(BLOCKS, 1):
    for block in range(blocks):
      source, target = f"layer{stage}.{block}", f"layer{stage}_{block}"
      for layer in ("conv1", "bn1", "conv2", "bn2"):
        names[f"{source}.{layer}"] = (target, layer)
      if stage > 1 and block == 0:
        names[f"{source}.downsample.0"] = (target, "downsample_conv")
        names[f"{source}.downsample.1"] = (target, "downsample_bn")
  return names


def _check_width(state: Mapping[str, np.ndarray], width: int) -> None:
  if "conv1.weight" not in state or "layer4.1.bn2.weight" not in state:
    some = ", ".join(sorted(state)[:3])
    raise ValueError(f"found tensors {some}, ...; expected a ResNet-18's. Give {RESNET18_FILES}")
  found = state["conv1.weight"].shape[0]
  if found != width:
    raise ValueError(
      f"the weight file's ResNet-18 has width {found}, the config's encoder {width}: set "
      f"model.encoder_width={found}, or model.encoder_weights=none"
    )


def fill(
  tree: dict[tuple[str, ...], Any],
  path: tuple[str, ...],
  state: Mapping[str, np.ndarray],
  name: str,
  *,
  network: str = "ResNet-18",
) -> None:
  """Replaces one leaf of a flat tree by one tensor.

  Args:
    tree: leaves by path. Changed.
    path: of the leaf.
    state: the state dict.
    name: of the tensor.
    network: whose state dict it should be, for the error's text.

  Raises:
    ValueError: for a tensor that is missing, of another shape or not finite.
  """
  if name not in state:
    raise ValueError(f"the weight file has no tensor {name!r}; is it a {network}?")
  value = state[name]
  value = convolution_kernel(value) if value.ndim == 4 else np.array(value, np.float32)
  if value.shape != tree[path].shape:
    raise ValueError(
      f"tensor {name!r} has shape {state[name].shape}; its place {'/'.join(path)} takes "
      f"{tree[path].shape} (PyTorch's kernels are transposed). Is it a {network}?"
    )
  if not np.isfinite(value).all():
    raise ValueError(f"tensor {name!r} holds values that are not finite; the file is damaged")
  tree[path] = value


def _strip(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Drops prefixes that every name shares."""
  for prefix in ("module.", "model."):
    if state and all(name.startswith(prefix) for name in state):
      state = {name.removeprefix(prefix): value for name, value in state.items()}
  return state


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  import safetensors
  import safetensors.numpy

  try:
    return safetensors.numpy.load_file(path)
  except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
    raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
