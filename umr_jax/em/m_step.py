"""The M-step: template and canonical semantic UV map as means over selected training images.

The template is that of equation 4, V_t = V_{t-1} + mean over Q of the offsets, and the canonical
map that of equation 1, the mean over U of the images' part maps in UV space. `aggregate` selects Q
and U. What the template takes over leaves the network's offsets: `recentre`.

Source: Li et al. 2020, section 3.2, equations 1 and 4.
"""

import dataclasses

import jax
import numpy as np
from jaxtyping import Array, Float

from umr_jax.em.aggregate import SufficientStatistics
from umr_jax.models.assemble import with_canonical_uv
from umr_jax.types import EMState, Template, Topology, TrainState

_BIAS = ("shape_head", "offsets", "bias")


def m_step(
  em_state: EMState, statistics: SufficientStatistics, *, topology: Topology, template: bool = True
) -> tuple[EMState, np.ndarray]:
  """The template moves by Q's mean offset; the canonical UV map becomes U's mean part map.

  The shape head is one affine layer, so the mean of its decoded offsets is the decoded mean of the
  shape codes that the paper averages.

  Args:
    em_state: what the E-step held fixed.
    statistics: the sums over Q and U.
    topology: the mesh.
    template: whether the template moves, too, or only the canonical UV map.

  Returns:
    The new state, in the same round, and the mean offset [Vh, 3] by which the template moved: the
    caller takes it out of the network with `recentre`.

  Source: Li et al. 2020, equations 4 (template) and 1 (canonical semantic UV map).
  """
  mean_offset, canonical_uv = statistics.finalize()
  # Symmetry holds the centre vertices on the mirror plane: the template must not leave it either.
  mean_offset[: topology.num_center, 1] = 0.0
  if not template:
    mean_offset[:] = 0.0
  half = np.asarray(em_state.template.half_vertices) + mean_offset
  new = dataclasses.replace(em_state, template=Template(half_vertices=half))
  if canonical_uv is not None:
    new = with_canonical_uv(new, canonical_uv, topology=topology)
  return new, mean_offset


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
