"""The decorator that checks array shapes; apart from `types`, so that `render` needs no flax."""

from collections.abc import Callable
from typing import Any, TypeVar

import beartype
from jaxtyping import jaxtyped

Function = TypeVar("Function", bound=Callable[..., Any])


def checked(function: Function) -> Function:
  """Checks the shapes and types of a function's arguments and result, at trace time.

  Raises:
    jaxtyping.TypeCheckError: for arrays that contradict the annotations.
  """
  return jaxtyped(typechecker=beartype.beartype)(function)
