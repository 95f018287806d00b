"""The modes of a posterior over views: what an image may show, each with its probability."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from umr_jax.models.view_template import MODE_DEGREES
from umr_jax.types import checked


class ViewMode(NamedTuple):
  """A view and those around it."""

  probability: float  # of all of them
  camera: np.ndarray  # [7], of the likeliest


@checked
def view_modes(
  probs: Float[np.ndarray, "K"], cameras: Float[np.ndarray, "K 7"], *, least: float = 0.05
) -> list[ViewMode]:
  """The modes, the most probable first.

  An object whose ends look alike has two, half a turn apart; one whose silhouette two tilts explain
  has two as well. The likeliest view and those within 40 degrees of it are one mode; of the others
  the likeliest is the next.

  Args:
    probs: of the views.
    cameras: of the views.
    least: the probability of a mode; smaller ones are left out.
  """
  modes, left = [], probs.astype(np.float64)
  cosines = np.abs(cameras[:, 3:] @ cameras[:, 3:].T)
  near = cosines > np.cos(0.5 * np.radians(MODE_DEGREES))
  while left.max() > 0.0:
    view = int(np.argmax(left))
    own = near[view]
    modes.append(ViewMode(float(left[own].sum()), cameras[view]))
    left = np.where(own, 0.0, left)
  modes.sort(key=lambda mode: -mode.probability)
  return [mode for mode in modes if mode.probability >= least]
