"""Semantic consistency: what the canonical part map says of an image, against its own parts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from umr_jax.config.settings import LossConfig
from umr_jax.geometry import camera
from umr_jax.geometry.symmetry import symmetrize
from umr_jax.losses.drawing import Drawing, average_pool
from umr_jax.losses.part_probability import part_probability_loss
from umr_jax.losses.part_targets import PartTargets, part_targets
from umr_jax.losses.part_vertices import part_vertices_loss
from umr_jax.models.assemble import part_texels
from umr_jax.types import Batch, EMState, Topology


class Semantics(NamedTuple):
  """The parts of a batch, and what the semantic terms that have a weight make of them."""

  targets: PartTargets
  texels: Float[Array, "F T P"] | None  # of the canonical map, to be rendered
  vertex_values: Float[Array, "B K"] | None  # how badly each hypothesis places the template's parts


def semantics(
  em_state: EMState,
  batch: Batch,
  cameras: Float[Array, "B K 7"],
  key: PRNGKeyArray,
  *,
  mask: Float[Array, "B H W"],
  topology: Topology,
  weights: LossConfig,
) -> Semantics | None:
  """Prepares the semantic terms; None before the first canonical map, or without parts.

  The vertex term is the template's, not the instance's: it teaches cameras alone.

  Args:
    em_state: the template, the canonical map and the part of each vertex.
    batch: with part maps.
    cameras: every hypothesis.
    key: for the points that stand for a part.
    mask: silhouettes at the size of the renders.
    topology: the mesh.
    weights: which terms there are.

  Source: Li et al. 2020, section 3.2.
  """
  if em_state.canonical_uv is None or em_state.part_vertices is None or batch.parts is None:
    return None
  shown = average_pool(batch.parts, mask.shape[-1])
  targets = part_targets(shown, mask, batch.index, key)
  texels, values = None, None
  if weights.part_probability:
    texels = part_texels(jnp.asarray(em_state.canonical_uv), topology)
  if weights.part_vertices:
    template = symmetrize(em_state.template.half_vertices, num_center=topology.num_center)
    shape = (*cameras.shape[:2], *template.shape)
    projected = camera.project(jnp.broadcast_to(template[None, None], shape), cameras)
    values = part_vertices_loss(
      projected=projected[..., :2],
      labels=em_state.part_vertices,
      points=targets.points,
      seen=targets.seen,
    )
  return Semantics(targets, texels, values)


def probability_term(parts: Semantics, drawing: Drawing) -> Float[Array, "B"]:
  """The probability-based term, of a drawing with the canonical parts after the colours."""
  rgba = drawing.fragments.rgba
  # Coverage counts, but is the mask term's to teach.
  rendered = jax.lax.stop_gradient(rgba[..., -1:]) * rgba[..., 3:-1]
  return part_probability_loss(
    rendered=rendered, target=parts.targets.probs, seen=parts.targets.seen
  )
