"""A network that goes on with a finer mesh."""

from typing import Any

import jax
import numpy as np

from umr_jax.geometry.subdivision import refine_half
from umr_jax.types import Topology, TrainState

_HEAD = ("shape_head", "offsets")
_SQUARES = "nu"  # optax's name of Adam's mean squared gradients


def finer(train_state: TrainState, coarse: Topology, fine: Topology) -> TrainState:
  """The network whose shapes are the same surfaces on a mesh of the next level.

  The shape head is one affine layer, and the middle of an edge is a linear function of its ends: so
  is the head of the finer mesh a linear function of the head. Adam's moments of the head go the
  same way, the squares without a mirror's sign; everything else stays.

  Args:
    train_state: of the coarse mesh.
    coarse: its mesh.
    fine: the mesh of the next level.

  Raises:
    ValueError: if the levels do not follow each other, or the network has no shape head.
  """
  changed = 0

  def lift(path: tuple, leaf: Any) -> Any:
    nonlocal changed
    names = tuple(str(getattr(key, "key", getattr(key, "name", ""))) for key in path)
    if names[-3:-1] != _HEAD:
      return leaf
    changed += 1
    values = np.asarray(leaf)
    half = values.reshape(*values.shape[:-1], -1, 3)
    refined = refine_half(half, coarse, fine, squares=_SQUARES in names)
    return refined.reshape(*values.shape[:-1], -1)

  lifted = jax.tree_util.tree_map_with_path(lift, train_state)
  if not changed:
    raise ValueError(f"The parameters hold no {'/'.join(_HEAD)}; a finer mesh needs it.")
  return lifted
