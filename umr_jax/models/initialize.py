"""Initialization: random parameters, sampled on the host, and published weights where asked."""

import pathlib
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array

from umr_jax.config.settings import Config, ModelConfig
from umr_jax.models.encoder import BLOCKS
from umr_jax.models.frozen import COLLECTION, frozen_efficientnet, published_file
from umr_jax.models.layers import Initializer
from umr_jax.models.pretrained import (
  RESNET18_FILES,
  convolution_kernel,
  read_torch_file,
  weight_file,
)
from umr_jax.models.umr_net import UMRNet
from umr_jax.types import Variables


def encoder_file(model: ModelConfig) -> pathlib.Path | None:
  """The weight file that an encoder starts from, found before anything expensive happens.

  Returns:
    None where it starts from random parameters.

  Raises:
    FileNotFoundError: where the config needs a file and there is none.
  """
  if model.encoder == "resnet18":
    return None if model.encoder_weights == "none" else weight_file(model.encoder_weights)
  return published_file(
    model.encoder_weights,
    asked="model.encoder=efficientnet",
    setting="model.encoder_weights",
    otherwise="set model.encoder=resnet18, which needs none",
  )


def init_variables(
  net: UMRNet, config: Config, *, seed: int
) -> tuple[Variables, Variables, Variables]:
  """A network's initial parameters, batch statistics, and weights that stay as published.

  Args:
    net: the network.
    config: of the run; names weight files.
    seed: of the random parameters.

  Raises:
    FileNotFoundError: as `encoder_file`.
    ValueError: for a weight file of another network.
  """
  params, batch_stats = initialize(net, image_size=config.data.image_size, seed=seed)
  file = encoder_file(config.model)
  if file is None:
    return params, batch_stats, {}
  if config.model.encoder == "efficientnet":
    return params, batch_stats, frozen_efficientnet(file, path=("encoder", "frozen"))
  return *resnet18_variables(read_torch_file(file), params, batch_stats), {}


Path = tuple[str, ...]


def initialize(net: nn.Module, *, image_size: int, seed: int) -> tuple[Variables, Variables]:
  """Samples a network's parameters from the distributions that its layers name.

  Args:
    net: takes images and `train`, and is built from the layers of `models.layers`.
    image_size: any size that the network reads; the parameters do not depend on it.
    seed: not negative.

  Returns:
    Parameters and BatchNorm statistics (mean 0, variance 1): nested dicts of float32 NumPy arrays.

  Raises:
    ValueError: for a parameter whose layer names no initializer.
  """
  images = jax.ShapeDtypeStruct((2, image_size, image_size, 3), jnp.float32)
  variables = draw_variables(net, images, seed=seed, train=True)
  return variables["params"], variables.get("batch_stats", {})


def draw_variables(
  module: nn.Module, *inputs: jax.ShapeDtypeStruct | Array, seed: int, **options: bool
) -> dict[str, dict[str, Variables | Array]]:
  """`module.init`, at a tenth of its time: the module is only traced, and NumPy samples.

  A parameter's sample depends on the seed and on its own path, so that networks that differ in one
  head (in the number of cameras, for example) start from the same encoder.

  Args:
    module: built from the layers of `models.layers`.
    *inputs: the module's arguments; shapes are enough.
    seed: not negative.
    **options: the module's keyword arguments, such as `train`.

  Returns:
    The module's variables, as NumPy arrays.

  Raises:
    ValueError: for a parameter whose layer names no initializer.
  """
  modules: dict[Path, nn.Module] = {}

  def remember(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
    context: nn.module.InterceptorContext,
  ) -> Any:
    modules[context.module.path] = context.module
    return function(*arguments, **keywords)

  modes: dict[str, Any] = {**options}  # flax's own keyword arguments have other types
  with nn.intercept_methods(remember):
    shapes = jax.eval_shape(lambda *x: module.init(jax.random.key(0), *x, **modes), *inputs)

  leaves = {}
  for path, leaf in traverse_util.flatten_dict(shapes).items():
    collection, *owner, name = path
    if collection in ("batch_stats", COLLECTION):
      leaves[path] = np.full(leaf.shape, 1.0 if name == "var" else 0.0, np.float32)
      continue
    initializer = getattr(modules.get(tuple(owner)), f"{name}_init", None)
    if not isinstance(initializer, Initializer):
      raise ValueError(f"parameter {'/'.join(path)} has no initializer; see models.layers")
    rng = np.random.default_rng((seed, zlib.crc32("/".join(path[1:]).encode())))
    leaves[path] = initializer.sample(rng, leaf.shape)
  return traverse_util.unflatten_dict(leaves)


def resnet18_variables(
  state: Mapping[str, np.ndarray], params: Variables, batch_stats: Variables
) -> tuple[Variables, Variables]:
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
  width = traverse_util.flatten_dict(params)["encoder", "resnet", "conv1", "kernel"].shape[-1]
  _check_width(state, width)
  layers = {source: ("encoder", "resnet", *path) for source, path in _resnet18_layers().items()}
  return filled_layers(state, params, batch_stats, layers, network="ResNet-18")


def _resnet18_layers() -> dict[str, tuple[str, ...]]:
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


# What PyTorch calls the entries of a BatchNorm, and what `layers.BatchNorm` does.
_BATCH_NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}


def filled_layers(
  state: Mapping[str, np.ndarray],
  params: Variables,
  batch_stats: Variables,
  layers: Mapping[str, Path],
  *,
  network: str,
) -> tuple[Variables, Variables]:
  """Puts convolutions without biases, and BatchNorms, of a PyTorch state dict into a network.

  Args:
    state: the state dict.
    params: the network's parameters. Not changed.
    batch_stats: its BatchNorm statistics. Not changed.
    layers: the paths of layers in the network by PyTorch's names; a BatchNorm's own name has "bn".
    network: whose state dict it should be, for the error's text.

  Returns:
    New parameters and statistics.

  Raises:
    ValueError: for a tensor that is missing, of another shape or not finite.
  """
  new_params = traverse_util.flatten_dict(params)
  new_stats = traverse_util.flatten_dict(batch_stats)
  for source, path in layers.items():
    if "bn" in path[-1]:
      for suffix, leaf in _BATCH_NORM.items():
        tree = new_params if leaf in ("scale", "bias") else new_stats
        _fill(tree, (*path, leaf), state, f"{source}.{suffix}", network=network)
    else:
      _fill(new_params, (*path, "kernel"), state, f"{source}.weight", network=network)
  return traverse_util.unflatten_dict(new_params), traverse_util.unflatten_dict(new_stats)


def _fill(
  tree: dict[Path, np.ndarray],
  path: Path,
  state: Mapping[str, np.ndarray],
  name: str,
  *,
  network: str,
) -> None:
  """Replaces one leaf of a flat tree by one tensor."""
  if name not in state:
    raise ValueError(f"the weight file has no tensor {name!r}; is it a {network}?")
  value = state[name]
  value = convolution_kernel(value) if value.ndim == 4 else np.array(value, np.float32)
  if value.shape != tree[path].shape:
    raise ValueError(
      f"tensor {name!r} has shape {state[name].shape}; its path {'/'.join(path)} takes "
      f"{tree[path].shape} (PyTorch's kernels are transposed). Is it a {network}?"
    )
  if not np.isfinite(value).all():
    raise ValueError(f"tensor {name!r} holds values that are not finite; the file is damaged")
  tree[path] = value
