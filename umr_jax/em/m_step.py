"""The M-step: the only writer of the template, the canonical UV map and the part vertices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from umr_jax.em.aggregate import Statistics
from umr_jax.geometry.sampling import bilinear_sample
from umr_jax.types import EMState, Template, Topology


def m_step(
  em_state: EMState, statistics: Statistics, *, topology: Topology, template: bool = True
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


def with_canonical_uv(
  em_state: EMState, canonical_uv: Float[np.ndarray, "Hu Wu P1"], *, topology: Topology
) -> EMState:
  """The state with another canonical UV map, and the part of each vertex that follows from it."""
  labels = part_vertices(jnp.asarray(canonical_uv), topology)
  return dataclasses.replace(
    em_state, canonical_uv=canonical_uv, part_vertices=np.asarray(jax.device_get(labels))
  )


def part_vertices(canonical_uv: Float[Array, "Hu Wu P1"], topology: Topology) -> Int[Array, "V"]:
  """The most probable part at each vertex of the mesh, 0 for background."""
  probs = bilinear_sample(canonical_uv[None], jnp.asarray(topology.vertex_uv)[None])[0]
  return jnp.argmax(probs, axis=-1).astype(jnp.int32)
