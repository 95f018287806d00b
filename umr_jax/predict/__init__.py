"""From images to textured meshes with a trained network: all that serving needs.

`load_predictor` reads a checkpoint; the predictor turns images into `Reconstruction`s, which render
and export themselves, and between which `transfer_keypoints` transfers points.

`umr_jax.predict` is this package and, at the same time, the function `predict`: importing a
subpackage binds it to its name in the parent, over a function of that name, so the package itself
can be called. Its public names load on first use, so that importing one submodule stays light.
"""

import importlib
import os
import sys
import types
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from numpy.typing import ArrayLike

  from umr_jax.predict.predictor import (
    Predictor,
    Reconstruction,
    load_predictor,
    predict,
    transfer_keypoints,
  )

# `umr_jax` has the same ones.
__all__ = ("Predictor", "Reconstruction", "load_predictor", "predict", "transfer_keypoints")


class _CallablePackage(types.ModuleType):
  """The package as the function `predict`."""

  def __call__(
    self,
    images: "Iterable[ArrayLike | str | os.PathLike[str]]",
    checkpoint: "str | os.PathLike[str] | Predictor",
    *,
    masks: "Sequence[ArrayLike | None] | None" = None,
    boxes: "Sequence[ArrayLike | None] | None" = None,
  ) -> "list[Reconstruction]":
    """See `umr_jax.predict.predictor.predict`."""
    from umr_jax.predict import predictor

    return predictor.predict(images, checkpoint, masks=masks, boxes=boxes)


def __getattr__(name: str) -> object:
  if name not in __all__:
    raise AttributeError(f"module 'umr_jax.predict' has no attribute {name!r}")
  value = getattr(importlib.import_module("umr_jax.predict.predictor"), name)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _CallablePackage
