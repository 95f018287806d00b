"""What callers give to the public functions: read as jax.numpy reads it, and checked for shape."""

from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

# Anything that jax.numpy takes for an array: jax and NumPy arrays, numbers, nested lists of them.
ArrayLike: TypeAlias = jax.typing.ArrayLike | Sequence


def read_array(name: str, value: ArrayLike) -> Array:
  """An argument as an array of numbers; floating-point arrays keep their type.

  Args:
    name: of the argument.
    value: what was given.

  Raises:
    ValueError: for what is no array of real numbers, such as nested lists of unequal lengths.
  """
  array = _as_array(name, value)
  if jnp.issubdtype(array.dtype, jnp.floating):
    return array
  if jnp.issubdtype(array.dtype, jnp.integer):
    return array.astype(jnp.float32)
  raise ValueError(f"{name}: found {array.dtype}; expected real numbers")


def read_indices(name: str, value: ArrayLike) -> Array:
  """An argument as an array of whole numbers.

  Args:
    name: of the argument.
    value: what was given.

  Raises:
    ValueError: for what is none.
  """
  array = _as_array(name, value)
  if not jnp.issubdtype(array.dtype, jnp.integer):
    raise ValueError(f"{name}: found {array.dtype}; expected whole numbers")
  return array


def check_shapes(**arguments: tuple[Array | np.ndarray | None, str]) -> None:
  """Checks that the axes of all arguments fit together, and to what they must be.

  Args:
    **arguments: by name, an array and its last axes: "F 3 2" are F faces, any number but the same
      in all arguments, and exactly 3 and 2. Before these all have the same batch axes, unless the
      string begins with "=", for an argument without any. None stands for an argument that is not
      given.

  Raises:
    ValueError: with the argument's name, the shape that was found and the one that was expected.
  """
  sizes: dict[str, int] = {}
  batch: tuple[int, ...] | None = None
  for name, (array, axes) in arguments.items():
    if array is None:
      continue
    letters, shape = axes.removeprefix("=").split(), array.shape
    split = len(shape) - len(letters)
    lead = () if axes.startswith("=") else batch
    expected = [sizes.get(letter, letter) for letter in letters]
    fits = split >= 0 and (lead is None or shape[:split] == lead)
    for letter, size in zip(letters, shape[max(split, 0) :], strict=False):
      wanted = int(letter) if letter.isdigit() else sizes.setdefault(letter, size)
      fits = fits and size == wanted
    if not fits:
      front = ["..."] if lead is None else list(lead)
      wording = ", ".join(map(str, [*front, *expected]))
      raise ValueError(f"{name}: found shape {shape}; expected ({wording})")
    if not axes.startswith("="):
      batch = shape[:split]


def _as_array(name: str, value: ArrayLike) -> Array:
  try:
    return jnp.asarray(value)
  except (TypeError, ValueError) as error:
    raise ValueError(f"{name}: found no array of numbers but {type(value).__name__}") from error
