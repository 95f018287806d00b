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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from numpy.typing import ArrayLike

  from umr_jax.predict.predictor import Predictor as Predictor
  from umr_jax.predict.predictor import load_predictor as load_predictor
  from umr_jax.predict.predictor import predict as predict
  from umr_jax.predict.reconstruction import Reconstruction as Reconstruction
  from umr_jax.predict.transfer import transfer_keypoints as transfer_keypoints

_PUBLIC = {
  "Predictor": "umr_jax.predict.predictor",
  "load_predictor": "umr_jax.predict.predictor",
  "predict": "umr_jax.predict.predictor",
  "Reconstruction": "umr_jax.predict.reconstruction",
  "transfer_keypoints": "umr_jax.predict.transfer",
}
__all__ = [*_PUBLIC]


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


def __getattr__(name: str) -> Any:
  if name not in _PUBLIC:
    raise AttributeError(f"module 'umr_jax.predict' has no attribute {name!r}")
  value = getattr(importlib.import_module(_PUBLIC[name]), name)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted({*globals(), *_PUBLIC})


sys.modules[__name__].__class__ = _CallablePackage
