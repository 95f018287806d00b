"""A network's first parameters, drawn on the host."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from umr_jax.models.layers import Start

Path = tuple[str, ...]


def initialize(
  net: nn.Module, *, image_size: int, seed: int
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
  """Draws a network's parameters from the distributions that its layers name.

  The network is only traced, and NumPy draws: compiling `net.init` takes ten times as long. A
  parameter's draw depends on the seed and on its own path, so that networks that differ in one head
  (in the number of cameras, say) start from the same encoder.

  Args:
    net: takes images and `train`, and is built from the layers of `models.layers`.
    image_size: any size that the network reads; the parameters do not depend on it.
    seed: not negative.

  Returns:
    Parameters and BatchNorm statistics (mean 0, variance 1): nested dicts of float32 NumPy arrays.

  Raises:
    ValueError: for a parameter that no layer says how to start.
  """
  modules: dict[Path, nn.Module] = {}

  def remember(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    context: nn.module.InterceptorContext,
  ) -> Any:
    modules[context.module.path] = context.module
    return function(*arguments, **options)

  def shapes() -> Any:
    images = jnp.zeros((2, image_size, image_size, 3), jnp.float32)
    return net.init(jax.random.key(0), images, train=True)

  with nn.intercept_methods(remember):
    variables = jax.eval_shape(shapes)

  params = {}
  for path, leaf in traverse_util.flatten_dict(variables["params"]).items():
    start = getattr(modules.get(path[:-1]), f"{path[-1]}_init", None)
    if not isinstance(start, Start):
      raise ValueError(f"parameter {'/'.join(path)} has no start; build it from models.layers")
    rng = np.random.default_rng((seed, zlib.crc32("/".join(path).encode())))
    params[path] = start.draw(rng, leaf.shape)
  batch_stats = {
    path: np.full(leaf.shape, 1.0 if path[-1] == "var" else 0.0, np.float32)
    for path, leaf in traverse_util.flatten_dict(variables.get("batch_stats", {})).items()
  }
  return traverse_util.unflatten_dict(params), traverse_util.unflatten_dict(batch_stats)
