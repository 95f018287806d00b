"""The M-step: template and canonical semantic UV map as means over selected training images.

The template is that of equation 4, V_t = V_{t-1} + mean over Q of the offsets, and the canonical
map that of equation 1, the mean over U of the images' part maps in UV space. `aggregate` selects Q
and U.

Source: Li et al. 2020, section 3.2, equations 1 and 4.
"""

import dataclasses

import numpy as np

from umr_jax.em.aggregate import SufficientStatistics
from umr_jax.models.assemble import with_canonical_uv
from umr_jax.types import EMState, Template, Topology


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
    caller takes it out of the network with `train.recentre`.

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
