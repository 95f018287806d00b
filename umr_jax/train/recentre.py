"""What the M-step moved into the template is taken out of the network."""

import dataclasses

import jax
from jaxtyping import Array, Float

from umr_jax.types import TrainState

_BIAS = ("shape_head", "offsets", "bias")


def recentre(train_state: TrainState, mean_offset: Float[Array, "Vh 3"]) -> TrainState:
  """Subtracts the mean offset from the shape head's bias, so that no instance's shape jumps.

  Without it the template's update would count twice: once in the template, and once more in the
  offsets that the unchanged network still predicts.

  Args:
    train_state: the network that predicted the offsets.
    mean_offset: what the M-step added to the template.

  Returns:
    The state with new parameters.

  Source: Li et al. 2020, equation 4; the released code lets the update count twice.
  """

  def shift(path: tuple, leaf: Array) -> Array:
    names = tuple(key.key for key in path)
    return leaf - mean_offset.reshape(-1) if names == _BIAS else leaf

  found = [
    tuple(key.key for key in path)
    for path, _ in jax.tree_util.tree_leaves_with_path(train_state.params)
  ]
  if _BIAS not in found:
    raise ValueError(f"The parameters hold no {'/'.join(_BIAS)}; a template update needs it.")
  return dataclasses.replace(
    train_state, params=jax.tree_util.tree_map_with_path(shift, train_state.params)
  )
