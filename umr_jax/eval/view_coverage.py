"""Whether posteriors over views hold the truth as often as they say, and how wide they are."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from umr_jax.eval.predictions import Predictions
from umr_jax.geometry import quaternion
from umr_jax.models.view_template import REGION, credible_region
from umr_jax.types import ViewTemplate

# The share of all views beyond which a region is wide: the image leaves open from where it shows
# the object.
WIDE = 0.25


def view_regions(predictions: Predictions) -> dict[str, np.ndarray]:
  """How wide the posteriors are.

  Args:
    predictions: of a split.

  Returns:
    `view_region` [N]: the share of all views that the region of 90% covers; nothing where the model
    has no posterior over views.
  """
  probs = _probs(predictions)
  return {} if probs is None else {"view_region": credible_region(probs, REGION).mean(axis=1)}


def view_coverage(
  predictions: Predictions, template: ViewTemplate | None, alignment: Float[np.ndarray, "3 3"]
) -> dict[str, np.ndarray]:
  """Whether the regions of 90% hold the views nearest to the true cameras.

  Args:
    predictions: of a split, some with true cameras.
    template: of the model, with the views.
    alignment: the rotation from the true object frame to the learned one.

  Returns:
    `view_coverage`, 0 or 1 for each image whose camera is known; nothing where the model has no
    posterior over views.
  """
  probs = _probs(predictions)
  if probs is None or template is None:
    return {}
  known = predictions.has_camera
  true = predictions.true_rotations[known] @ alignment.T
  views = np.asarray(quaternion.to_matrix(jnp.asarray(template.rotations)))
  nearest = np.argmax(np.einsum("nij,kij->nk", true, views), axis=1)
  held = credible_region(probs[known], REGION)[np.arange(len(nearest)), nearest]
  return {"view_coverage": held.astype(np.float64)}


def wide_posteriors(predictions: Predictions) -> list[int]:
  """The rows of the images that leave open from where they show the object, the widest first.

  Args:
    predictions: of a split.
  """
  regions = view_regions(predictions).get("view_region", np.zeros(0))
  return [int(row) for row in np.argsort(-regions, kind="stable") if regions[row] > WIDE]


def _probs(predictions: Predictions) -> Float[np.ndarray, "N K"] | None:
  rows = [row for row in predictions.view_probs if row is not None]
  return np.stack(rows) if rows and len(rows) == len(predictions) else None
