"""Test-time optimisation: a network's predictions, fitted to their silhouettes."""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float

from umr_jax.config.settings import Config
from umr_jax.models.infer import Inference, infer
from umr_jax.models.view_template import view_cameras, view_probabilities
from umr_jax.predict.fit_mesh import Fitting, optimize
from umr_jax.types import Model, ViewTemplate, checked


def with_steps(config: Config, steps: int | None) -> Config:
  """The config with another number of steps of test-time optimisation; its own for None.

  Args:
    config: of a run.
    steps: of the optimizer; 0 for the network alone.

  Raises:
    ValueError: for steps where the network predicts no silhouettes.
  """
  if steps is None:
    return config
  return dataclasses.replace(config, refine=dataclasses.replace(config.refine, steps=steps))


@struct.dataclass
class KnownMasks:
  """Silhouettes of B crops that are known without the network, of those images that have one."""

  values: Float[Array, "B S S"]
  known: Bool[Array, "B"]  # where not, `values` mean nothing


class InferWithMasks(Protocol):
  """Reconstructs images, some of whose silhouettes may be known; also a `models.infer.Infer`."""

  def __call__(self, model: Model, images: Array, masks: KnownMasks | None = None) -> Inference:
    """Pure, and ready to be jitted."""
    ...


def make_infer(config: Config) -> InferWithMasks:
  """`models.infer.infer`, followed by test-time optimisation where the config asks for steps.

  Where the model has a template for it, there is a posterior over views beside the cameras.

  Args:
    config: of the round whose network it is (`Config.at_round`).

  Returns:
    infer(model, images, masks=None): where an image's mask is known, it counts in place of the one
    that the network predicts.
  """
  fitting = Fitting.from_config(config)

  def infer_and_optimize(model: Model, images: Array, masks: KnownMasks | None = None) -> Inference:
    found = infer(model, images)
    if masks is not None:
      found = with_known_masks(found, masks)
    if fitting.steps:
      found = optimize(found, model, fitting=fitting)
    found = with_views(found, model.view_template)
    # What was compared is no result.
    return found if found.encoded is None else dataclasses.replace(found, encoded=None)

  return infer_and_optimize


@checked
def with_known_masks(found: Inference, masks: KnownMasks) -> Inference:
  """Predictions with the silhouettes that are known in place of those that the network predicted.

  Args:
    found: with `mask`.
    masks: of the same images.
  """
  if found.mask is None:
    return found
  given = jax.image.resize(masks.values, found.mask.shape, "linear")
  mask = jnp.where(masks.known[:, None, None], given, found.mask)
  return dataclasses.replace(found, mask=mask)


@checked
def with_views(found: Inference, template: ViewTemplate | None) -> Inference:
  """Predictions with a posterior over views, which their silhouettes and encoded images give.

  Args:
    found: with `mask` and `encoded`; without one of them, they stay as they are.
    template: of the category; without one, likewise.
  """
  if template is None or found.mask is None or found.encoded is None:
    return found
  return dataclasses.replace(
    found,
    view_probs=view_probabilities(template, found.encoded, found.mask),
    view_cameras=view_cameras(template, found.mask),
  )
