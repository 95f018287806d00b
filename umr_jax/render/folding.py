"""`jax.vmap` over images that are already a batch: one larger batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array


def foldable(function: Callable[..., Any], *, shared: int) -> Callable[..., Any]:
  """Gives a function over a batch a rule for `jax.vmap` that makes the batch larger.

  Without it every loop over rows would run as often as the longest of all images needs, and copy
  its whole state each time.

  Args:
    function: takes pytrees of arrays. All arrays lead with the batch (or a multiple of it), but for
      the last `shared` arguments; so do all its results, unless no argument is shared.
    shared: how many of the last arguments have no batch. If `jax.vmap` maps over one of those, the
      function runs once for each of its values.
  """
  mapped = jax.custom_batching.custom_vmap(function)

  @mapped.def_vmap
  def _(size: int, is_mapped: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
    split = len(args) - shared
    if any(jax.tree.leaves(is_mapped[split:])):
      result = _one_by_one(mapped, size, is_mapped, args)
    else:
      own = jax.tree.map(
        lambda x, there: _fold(x if there else jnp.broadcast_to(x[None], (size, *x.shape))),
        args[:split],
        tuple(is_mapped[:split]),
      )
      result = jax.tree.map(
        lambda x: x.reshape(size, x.shape[0] // size, *x.shape[1:]), mapped(*own, *args[split:])
      )
    return result, jax.tree.map(lambda _: True, result)

  return mapped


def sequential(function: Callable[..., Any]) -> Callable[..., Any]:
  """Gives a function a rule for `jax.vmap` that runs it once for each value."""
  mapped = jax.custom_batching.custom_vmap(function)

  @mapped.def_vmap
  def _(size: int, is_mapped: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
    result = _one_by_one(mapped, size, is_mapped, args)
    return result, jax.tree.map(lambda _: True, result)

  return mapped


def _fold(array: Array) -> Array:
  return array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])


def _one_by_one(function: Callable[..., Any], size: int, is_mapped: Any, args: Any) -> Any:
  def one(index: Array) -> Any:
    return function(
      *jax.tree.map(lambda x, there: x[index] if there else x, args, tuple(is_mapped))
    )

  return lax.map(one, jnp.arange(size, dtype=jnp.int32))
