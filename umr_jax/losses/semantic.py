"""Semantic consistency: the canonical parts of the category against the parts of each image."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from umr_jax.geometry import camera
from umr_jax.geometry.sampling import average_pool, axis_centers
from umr_jax.geometry.symmetry import symmetrize
from umr_jax.losses.renders import Renders
from umr_jax.losses.spec import ObjectiveSpec
from umr_jax.models.assemble import part_texels
from umr_jax.random import per_image_keys
from umr_jax.types import Batch, EMState, checked

# Points that represent a part, and how many are sampled before the outermost are left out.
POINTS, _SAMPLED = 32, 48
# A part with less than this many pixels is not present.
_LEAST_PIXELS = 1.0
# Mass, as a share of the image, below which a part has no centre to speak of.
_LEAST_MASS = 1e-3


@checked
def part_probability_loss(
  *,
  rendered: Float[Array, "*B H W P"],
  target: Float[Array, "*B H W P"],
  present: Float[Array, "*B P"],
) -> Float[Array, "*B"]:
  """How far the rendered part maps are from the image's, pixel by pixel and by their centres.

  Args:
    rendered: coverage of each pixel by each part of the canonical map, in [0, 1].
    target: the image's part probabilities inside its silhouette.
    present: 1 for the parts that are present in the image, else 0. An image without any has a loss
      of 0: it has no part map.

  Returns:
    (map + centre) / 4, with `map` the mean over pixels of the squared differences, summed over the
    parts, and `centre` the mean squared distance between the centres of the parts that are in both.

  Source: Li et al. 2020, equation 2 (L_sp); the centres and the quarter are the released code's.
    Departs: all parts count alike, and maps are compared as probabilities, where the released code
    scales each to a largest value of 1 and takes centres of a softmax that is nearly flat.
  """
  known = jnp.max(present, axis=-1)
  pixels = jnp.mean(jnp.sum(jnp.square(rendered - target), axis=-1), axis=(-2, -1))
  there, here = _centres(rendered), _centres(target)
  both = present * (jnp.mean(rendered, axis=(-3, -2)) > _LEAST_MASS).astype(present.dtype)
  gaps = 0.5 * jnp.sum(jnp.square(there - here), axis=-1)
  centres = jnp.sum(both * gaps, axis=-1) / jnp.maximum(jnp.sum(both, axis=-1), 1.0)
  return known * 0.25 * (pixels + centres)


def _centres(maps: Float[Array, "*B H W P"]) -> Float[Array, "*B P 2"]:
  """The image positions of the maps' centres of mass; the origin for an empty map."""
  height, width = maps.shape[-3:-1]
  x, y = (jnp.asarray(axis_centers(size), maps.dtype) for size in (width, height))
  mass = jnp.maximum(jnp.sum(maps, axis=(-3, -2)), 1e-6)
  across = jnp.einsum("...hwp,w->...p", maps, x) / mass
  down = jnp.einsum("...hwp,h->...p", maps, y) / mass
  return jnp.stack([across, down], axis=-1)


@checked
def part_vertices_loss(
  *,
  projected: Float[Array, "B K V 2"],
  labels: Int[Array, "V"],
  points: Float[Array, "B P N 2"],
  present: Float[Array, "B P"],
) -> Float[Array, "B K"]:
  """Chamfer distance from each part's vertices to its points in the image.

  Args:
    projected: the template's vertices under every camera hypothesis, in image space. All of them
      count, visible or not.
    labels: the part of each vertex from 1 to P, or 0 for none.
    points: image positions of each part.
    present: 1 for the parts that are present in an image, else 0.

  Returns:
    For each hypothesis the mean over the parts that both image and template have, each the
    mean squared distance of its vertices; in squared image-space units; 0 without such a part.

  Source: Li et al. 2020, equation 3 (L_sv). Departs: a mean over the parts where the paper has
    their sum, so that one weight serves any number of parts; all parts count alike, where the
    released code weighs two of its four by 1 and the others by 0.
  """
  parts = present.shape[-1]
  member = (labels[:, None] == jnp.arange(1, parts + 1)[None]).astype(projected.dtype)  # [V, P]
  counts = jnp.sum(member, axis=0)
  # A vertex is compared with the points of its own part alone.
  own = jnp.take(points, jnp.maximum(labels - 1, 0), axis=1)  # [B, V, N, 2]
  # The nearest is selected, not the least distance taken: the gradient of a minimum looks for what
  # equals it, finds nothing where fused code rounds otherwise, and is NaN; and it is slower.
  fixed = jax.lax.stop_gradient(projected)
  nearest = jnp.argmin(_squared(fixed[..., None, :], own[:, None]), axis=-1)  # [B, K, V]
  chosen = jnp.take_along_axis(own[:, None], nearest[..., None, None], axis=3)[..., 0, :]
  gaps = _squared(projected, chosen)
  means = jnp.einsum("bkv,vp->bkp", gaps, member) / jnp.maximum(counts, 1.0)[None, None]
  counted = (present * (counts[None] > 0.0).astype(present.dtype))[:, None]
  total = jnp.sum(jnp.where(counted > 0.0, means, 0.0), axis=-1)
  return total / jnp.maximum(jnp.sum(counted, axis=-1), 1.0)


def _squared(a: Array, b: Array) -> Array:
  """Squared distances, coordinate by coordinate: no array with an innermost axis of 2."""
  return jnp.square(a[..., 0] - b[..., 0]) + jnp.square(a[..., 1] - b[..., 1])


class PartTargets(NamedTuple):
  """The parts of each image, without the background."""

  probs: Float[Array, "B H W P"]  # inside the silhouette
  present: Float[Array, "B P"]  # 1 where a part is present in the image, else 0
  points: Float[Array, "B P N 2"]  # image positions, spread over the part


@checked
def part_targets(
  parts: Float[Array, "B H W P1"],
  mask: Float[Array, "B H W"],
  index: Int[Array, "B"],
  key: PRNGKeyArray,
) -> PartTargets:
  """Part maps as targets: their probabilities, and points sampled from each.

  Of a part's points those farthest from its centre are left out, so that a stray pixel attracts
  nothing.

  Args:
    parts: probabilities, background first; all zeros where an image has no part map.
    mask: silhouettes.
    index: of each image in its split; its samples do not depend on the rest of the batch.
    key: of the step.

  Source: Li et al. 2020, section 3.2, and the released sampling. Departs: as many points from each
    part, sampled with replacement and anywhere within a pixel.
  """
  probs = parts[..., 1:] * mask[..., None]
  mass = jnp.sum(probs, axis=(1, 2))
  present = (mass >= _LEAST_PIXELS).astype(probs.dtype)
  keys = per_image_keys(key, index)
  planes = jnp.moveaxis(probs, -1, 1)
  points = jax.vmap(_sample_points)(planes, keys)
  return PartTargets(probs=probs, present=present, points=points)


def _sample_points(planes: Float[Array, "P H W"], key: PRNGKeyArray) -> Float[Array, "P N 2"]:
  """Points of one image's parts; anywhere for a part that is not there."""
  parts, height, width = planes.shape
  place_key, shift_key = jax.random.split(key)
  cumulative = jnp.cumsum(planes.reshape(parts, -1), axis=-1)
  # Below the last sum, so that rounding never picks a pixel beyond it.
  level = jax.random.uniform(place_key, (parts, _SAMPLED)) * cumulative[:, -1:] * (1.0 - 1e-6)
  pixel = jax.vmap(lambda table, x: jnp.searchsorted(table, x, side="right"))(cumulative, level)
  pixel = jnp.minimum(pixel, height * width - 1)
  corner = jnp.stack([pixel % width, pixel // width], axis=-1).astype(planes.dtype)
  place = corner + jax.random.uniform(shift_key, corner.shape)
  points = 2.0 * place / jnp.array([[[width, height]]], planes.dtype) - 1.0
  gap = jnp.sum(jnp.square(points - jnp.mean(points, axis=1, keepdims=True)), axis=-1)
  nearest = jnp.argsort(gap, axis=-1)[:, :POINTS]
  return jnp.take_along_axis(points, nearest[..., None], axis=1)


class Semantics(NamedTuple):
  """The parts of a batch, and of the category."""

  targets: PartTargets
  texels: Float[Array, "F T P"] | None  # of the canonical map, to be rendered, where L_sp counts
  template: Float[Array, "V 3"]
  labels: Int[Array, "V"]  # the part of each of its vertices, 0 for background


def prepare_semantics(
  em_state: EMState,
  batch: Batch,
  key: PRNGKeyArray,
  *,
  mask: Float[Array, "B H W"],
  spec: ObjectiveSpec,
) -> Semantics | None:
  """Prepares the semantic terms; None before the first canonical map, or without parts.

  Args:
    em_state: the template, the canonical map and the part of each vertex.
    batch: with part maps.
    key: for the points that represent a part.
    mask: silhouettes at the size of the renders.
    spec: of the objective; its weights tell which terms there are.

  Source: Li et al. 2020, section 3.2.
  """
  if em_state.canonical_uv is None or em_state.part_vertices is None or batch.parts is None:
    return None
  half, num_center = em_state.template.half_vertices, spec.topology.num_center
  texels = None
  if spec.weights.part_probability:
    texels = part_texels(jnp.asarray(em_state.canonical_uv), spec.topology)
  return Semantics(
    targets=part_targets(average_pool(batch.parts, mask.shape[-1]), mask, batch.index, key),
    texels=texels,
    template=symmetrize(half, num_center=num_center),
    labels=em_state.part_vertices,
  )


def part_probability_term(parts: Semantics, renders: Renders) -> Float[Array, "B"]:
  """L_sp of the rendered canonical parts.

  Args:
    parts: of the batch.
    renders: with the canonical parts as channels after the colours.
  """
  rgba = renders.fragments.rgba
  # Only the mask term backpropagates to the coverage.
  rendered = jax.lax.stop_gradient(rgba[..., -1:]) * rgba[..., 3:-1]
  return part_probability_loss(
    rendered=rendered, target=parts.targets.probs, present=parts.targets.present
  )


def part_vertices_term(parts: Semantics, cameras: Float[Array, "B K 7"]) -> Float[Array, "B K"]:
  """L_sv under each hypothesis.

  With the template's vertices, not the instance's: it backpropagates to cameras alone.

  Args:
    parts: of the batch.
    cameras: the hypotheses.
  """
  spread = jnp.broadcast_to(parts.template[None, None], (*cameras.shape[:2], *parts.template.shape))
  return part_vertices_loss(
    projected=camera.project(spread, cameras)[..., :2],
    labels=parts.labels,
    points=parts.targets.points,
    present=parts.targets.present,
  )
