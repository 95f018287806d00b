"""A network's first parameters, drawn on the host."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array

from umr_jax.models.frozen import COLLECTION
from umr_jax.models.layers import Start

Path = tuple[str, ...]


def initialize(
  net: nn.Module, *, image_size: int, seed: int
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
  """Draws a network's parameters from the distributions that its layers name.

  Args:
    net: takes images and `train`, and is built from the layers of `models.layers`.
    image_size: any size that the network reads; the parameters do not depend on it.
    seed: not negative.

  Returns:
    Parameters and BatchNorm statistics (mean 0, variance 1): nested dicts of float32 NumPy arrays.

  Raises:
    ValueError: for a parameter that no layer says how to start.
  """
  images = jax.ShapeDtypeStruct((2, image_size, image_size, 3), jnp.float32)
  variables = draw_variables(net, images, seed=seed, train=True)
  return variables["params"], variables.get("batch_stats", {})


def draw_variables(
  module: nn.Module, *inputs: jax.ShapeDtypeStruct | Array, seed: int, **options: Any
) -> dict[str, Any]:
  """`module.init`, at a tenth of its time: the module is only traced, and NumPy draws.

  A parameter's draw depends on the seed and on its own path, so that networks that differ in one
  head (in the number of cameras, say) start from the same encoder.

  Args:
    module: built from the layers of `models.layers`.
    *inputs: what the module is called with; shapes are enough.
    seed: not negative.
    **options: what else the module is called with.

  Returns:
    The module's variables, as NumPy arrays.

  Raises:
    ValueError: for a parameter that no layer says how to start.
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

  with nn.intercept_methods(remember):
    shapes = jax.eval_shape(lambda *x: module.init(jax.random.key(0), *x, **options), *inputs)

  leaves = {}
  for path, leaf in traverse_util.flatten_dict(shapes).items():
    collection, *owner, name = path
    if collection in ("batch_stats", COLLECTION):
      leaves[path] = np.full(leaf.shape, 1.0 if name == "var" else 0.0, np.float32)
      continue
    start = getattr(modules.get(tuple(owner)), f"{name}_init", None)
    if not isinstance(start, Start):
      raise ValueError(f"parameter {'/'.join(path)} has no start; build it from models.layers")
    rng = np.random.default_rng((seed, zlib.crc32("/".join(path[1:]).encode())))
    leaves[path] = start.draw(rng, leaf.shape)
  return traverse_util.unflatten_dict(leaves)
