"""`jax.vmap` over images that are already a batch: one larger batch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PyTree


def foldable(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
  """Gives a function over a batch a rule for `jax.vmap` that makes the batch larger.

  Without it every loop over rows would run as often as the longest of all images needs, and copy
  its whole state each time.

  Args:
    function: takes pytrees of arrays. All arrays lead with the batch (or a multiple of it), but for
      the last argument, which has none; so do all its results. If `jax.vmap` maps over the last
      argument, the function runs once for each of its values.
  """
  mapped = jax.custom_batching.custom_vmap(function)

  @mapped.def_vmap
  def _(size: int, is_mapped: tuple[PyTree, ...], *args: PyTree) -> tuple[PyTree, PyTree]:
    if any(jax.tree.leaves(is_mapped[-1])):
      result = _one_by_one(mapped, size, is_mapped, args)
    else:
      own = jax.tree.map(
        lambda x, there: _fold(x if there else jnp.broadcast_to(x[None], (size, *x.shape))),
        args[:-1],
        tuple(is_mapped[:-1]),
      )
      result = jax.tree.map(
        lambda x: x.reshape(size, x.shape[0] // size, *x.shape[1:]), mapped(*own, args[-1])
      )
    return result, jax.tree.map(lambda _: True, result)

  return mapped


def sequential(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
  """Gives a function a rule for `jax.vmap` that runs it once for each value."""
  mapped = jax.custom_batching.custom_vmap(function)

  @mapped.def_vmap
  def _(size: int, is_mapped: tuple[PyTree, ...], *args: PyTree) -> tuple[PyTree, PyTree]:
    result = _one_by_one(mapped, size, is_mapped, args)
    return result, jax.tree.map(lambda _: True, result)

  return mapped


def _fold(array: Array) -> Array:
  return array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])


def _one_by_one(
  function: Callable[..., PyTree], size: int, is_mapped: PyTree, args: PyTree
) -> PyTree:
  def one(index: Array) -> PyTree:
    return function(
      *jax.tree.map(lambda x, there: x[index] if there else x, args, tuple(is_mapped))
    )

  return lax.map(one, jnp.arange(size, dtype=jnp.int32))
