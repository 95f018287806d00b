"""What this package adds to the objective of Li et al. 2020: `extend`, which `total_loss` calls.

  extension              setting                    in the place of
  target camera          init's pose search,        hypotheses: the target is rendered alone, and
                         loss.target_camera         that in whose share of the circle it lies learns
  responsibilities       loss.camera_temperature,   predicted probabilities in the expectation over
                         loss.camera_posterior      hypotheses; the most responsible one is textured
  shape variance         loss.shape_variance        -
  smooth offsets         loss.smooth_offsets        the Laplacian of the whole mesh
  outline                loss.outline               -
  segmentation head      loss.segmentation          -
  flow correction        loss.flow_correction       a flow that the network alone predicts

With the settings at zero or off, the paper's hypotheses come back and there are no further terms.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from umr_jax.config.settings import LossConfig
from umr_jax.geometry.camera import Camera, project
from umr_jax.geometry.sampling import average_pool, choose_rows
from umr_jax.geometry.symmetry import symmetrize
from umr_jax.losses.camera import (
  Hypotheses,
  camera_posterior_loss,
  responsibilities,
  target_camera_loss,
)
from umr_jax.losses.mask import outline_loss, outline_points, segmentation_loss, soft_iou
from umr_jax.losses.renders import faces_in_view
from umr_jax.losses.semantic import Semantics, part_vertices_term
from umr_jax.losses.shape import laplacian_loss, shape_variance_loss
from umr_jax.losses.spec import ObjectiveSpec
from umr_jax.losses.texture import flow_correction_loss
from umr_jax.models.camera_heads import nearest_hypothesis
from umr_jax.types import Batch, EMState, Prediction

# Points on an outline, at most: of a long one in large renders, its upper part.
_OUTLINE = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extended:
  """What the extensions put in the place of the paper's objective, and what they add to it."""

  hypotheses: Hypotheses
  terms: dict[str, Float[Array, "B"]]  # one that has the name of a paper's term takes its place
  weights: dict[str, Float[Array, ""]]  # those of the terms that change during a run


def extend(
  hypotheses: Hypotheses,
  prediction: Prediction,
  em_state: EMState,
  batch: Batch,
  *,
  vertices: Float[Array, "B V 3"],
  parts: Semantics | None,
  round_step: Int[Array, ""],
  spec: ObjectiveSpec,
) -> Extended:
  """The hook: every extension that the weights switch on.

  Args:
    hypotheses: the paper's.
    prediction: the network's output.
    em_state: with the round.
    batch: with target cameras, where there are any.
    vertices: every image's mesh, in object space.
    parts: of the batch.
    round_step: steps taken in this round.
    spec: of the objective.
  """
  weights, target = spec.weights, None
  if batch.target_camera is not None:
    target = nearest_hypothesis(
      Camera.unpack(batch.target_camera).quaternion, hypotheses=hypotheses.cameras.shape[1]
    )
    used = _only(batch.target_camera)
  elif weights.camera_temperature and hypotheses.cameras.shape[1] > 1:
    used = _by_responsibility(hypotheses, prediction, batch, vertices, parts, spec)
  else:
    used = hypotheses
  settling = (em_state.round == 0) & (round_step < weights.shape_variance_stop)
  return Extended(
    hypotheses=used,
    terms=_terms(used, vertices, target, prediction, batch, spec),
    # It ends when the cameras have settled.
    weights={"shape_variance": jnp.where(settling, weights.shape_variance, 0.0)},
  )


def _only(cameras: Float[Array, "B 7"]) -> Hypotheses:
  """The target cameras in the place of hypotheses: pose search has compared all sides.

  Shapes that are fitted under the network's own cameras bend to what these still get wrong, and the
  template follows at the M-steps: it grows thick. The network learns the targets beside them.
  """
  return Hypotheses(
    cameras=cameras[:, None],
    probabilities=jnp.ones_like(cameras[:, :1]),
    chosen=jnp.zeros(len(cameras), jnp.int32),
  )


def _by_responsibility(
  hypotheses: Hypotheses,
  prediction: Prediction,
  batch: Batch,
  vertices: Float[Array, "B V 3"],
  parts: Semantics | None,
  spec: ObjectiveSpec,
) -> Hypotheses:
  """Hypotheses that count by how well they explain an image.

  One is responsible for its silhouette and for its parts, in units of the mask term. The most
  responsible one is textured: a flow that is fitted to many views at once fits their mean.
  """
  weights, cameras = spec.weights, hypotheses.cameras
  alpha = spec.render.soft_silhouette(faces_in_view(vertices, cameras, spec.topology))
  mask = average_pool(batch.mask, spec.image_size)
  losses = 1.0 - soft_iou(alpha=alpha, mask=mask[:, None])
  if parts is not None and weights.part_vertices:
    losses += weights.part_vertices * part_vertices_term(parts, cameras) / max(weights.mask, 1e-6)
  responsible = responsibilities(
    losses, prediction.camera_logits, temperature=weights.camera_temperature
  )
  chosen = jnp.argmax(responsible, axis=-1)
  return Hypotheses(cameras=cameras, probabilities=responsible, chosen=chosen, alpha=alpha)


def _terms(
  hypotheses: Hypotheses,
  vertices: Float[Array, "B V 3"],
  target: Int[Array, "B"] | None,
  prediction: Prediction,
  batch: Batch,
  spec: ObjectiveSpec,
) -> dict[str, Float[Array, "B"]]:
  """The terms that the paper does not have, those with a weight."""
  weights: LossConfig = spec.weights
  logits, offsets = prediction.camera_logits, prediction.half_offsets
  terms = {}
  if weights.smooth_offsets:  # the template keeps its edges
    smoothed = symmetrize(offsets, num_center=spec.topology.num_center)
    terms["laplacian"] = laplacian_loss(smoothed, spec.topology)
  if weights.camera_posterior:
    posterior = jax.lax.stop_gradient(hypotheses.probabilities)
    if target is not None:
      posterior = jax.nn.one_hot(target, logits.shape[1], dtype=logits.dtype)
    terms["camera_posterior"] = camera_posterior_loss(logits, posterior)
  if weights.outline:
    cameras = choose_rows(hypotheses.cameras, hypotheses.chosen)
    mask = average_pool(batch.mask, spec.image_size)
    terms["outline"] = outline_loss(
      project(vertices, cameras)[..., :2],
      *outline_points(mask, count=min(_OUTLINE, spec.image_size**2)),
    )
  if weights.shape_variance:
    terms["shape_variance"] = shape_variance_loss(offsets)
  if weights.target_camera and target is not None and batch.target_camera is not None:
    terms["target_camera"] = target_camera_loss(
      cameras=choose_rows(prediction.cameras, target), target=batch.target_camera
    )
  if weights.flow_correction and spec.flow == "projected":
    terms["flow_correction"] = flow_correction_loss(prediction.flow_map)
  if weights.segmentation and prediction.mask_logits is not None:
    terms["segmentation"] = segmentation_loss(logits=prediction.mask_logits, mask=batch.mask)
  return terms
