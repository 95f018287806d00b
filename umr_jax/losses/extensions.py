"""What this package adds to the objective of Li et al. 2020; `total_loss` has one hook for it.

  extension              setting                    in the place of
  target camera          init's pose search,        all hypotheses: the one in whose share of the
                         loss.target_camera         circle the target lies is rendered alone
  responsibilities       loss.camera_temperature,   predicted probabilities in the expectation over
                         loss.camera_posterior      hypotheses; the most responsible one is textured
  shape variance         loss.shape_variance        -
  smooth offsets         loss.smooth_offsets        the Laplacian of the whole mesh
  segmentation head      loss.segmentation          -
  flow correction        loss.flow_correction       a flow that the network alone predicts

With the settings at zero or off, `extend` leaves the paper's hypotheses, probabilities and terms.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from umr_jax.config.settings import LossConfig
from umr_jax.geometry.camera import Camera
from umr_jax.geometry.symmetry import symmetrize
from umr_jax.losses.camera import camera_posterior_loss, responsibilities, target_camera_loss
from umr_jax.losses.mask import segmentation_loss
from umr_jax.losses.renders import Choice, choose_rows
from umr_jax.losses.semantic import Semantics
from umr_jax.losses.shape import shape_variance_loss
from umr_jax.losses.spec import ObjectiveSpec
from umr_jax.losses.texture import flow_correction_loss
from umr_jax.models.camera_heads import nearest_hypothesis
from umr_jax.types import Batch, Prediction

Explain = Callable[[Array], tuple[Array, Array]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extended:
  """A batch's hypotheses and surfaces as the extensions leave them."""

  cameras: Float[Array, "B K 7"]  # the hypotheses that are rendered
  logits: Float[Array, "B K"]  # of their probabilities
  by_responsibility: bool  # the most responsible hypothesis is textured, not a sampled one
  smoothed: Float[Array, "B V 3"]  # what the Laplacian is taken of
  target: Int[Array, "B"] | None = None  # the hypothesis of the target camera
  target_loss: Float[Array, "B"] | None = None

  def choice(self, sampled: Int[Array, "B"], explain: Explain) -> Choice:
    """The hypothesis to render with texture: the sampled one, as in the paper, or what finds it.

    Args:
      sampled: one hypothesis per image.
      explain: from silhouettes to the mask losses and to the probabilities of all hypotheses.
    """
    if not self.by_responsibility:
      return sampled
    return lambda alpha: jnp.argmax(explain(alpha)[1], axis=-1)

  def probabilities(
    self,
    mask_losses: Float[Array, "B K"],
    parts: Semantics | None,
    weights: LossConfig,
  ) -> Float[Array, "B K"]:
    """Of each hypothesis in expectations: predicted, as in the paper, or its responsibility.

    A hypothesis is responsible for its silhouette and for its parts, in units of the mask term.

    Args:
      mask_losses: under each hypothesis.
      parts: of the batch, with L_sv under each hypothesis.
      weights: of the terms.
    """
    if not weights.camera_temperature:
      return jax.nn.softmax(self.logits, axis=-1)
    losses = mask_losses
    if parts is not None and parts.vertex_losses is not None:
      losses += weights.part_vertices * parts.vertex_losses / max(weights.mask, 1e-6)
    return responsibilities(losses, self.logits, temperature=weights.camera_temperature, prior=1.0)


def extend(
  prediction: Prediction, vertices: Float[Array, "B V 3"], batch: Batch, spec: ObjectiveSpec
) -> Extended:
  """The hook: what takes the place of the network's hypotheses, and of the Laplacian's surface.

  Args:
    prediction: the network's output.
    vertices: every image's mesh, in object space.
    batch: with target cameras, where there are any.
    spec: of the objective.
  """
  smoothed, weights, topology = vertices, spec.weights, spec.topology
  if weights.smooth_offsets:  # the template keeps its edges
    smoothed = symmetrize(prediction.half_offsets, num_center=topology.num_center)
  cameras, logits, target, target_loss = prediction.cameras, prediction.camera_logits, None, None
  if batch.target_camera is not None:
    # Pose search has compared all sides: no other hypothesis is rendered.
    target = nearest_hypothesis(
      Camera.unpack(batch.target_camera).quaternion, hypotheses=cameras.shape[1]
    )
    cameras = choose_rows(cameras, target)[:, None]
    target_loss = target_camera_loss(cameras=cameras, target=batch.target_camera)[:, 0]
    logits = jnp.zeros_like(logits[:, :1])
  return Extended(
    cameras=cameras,
    logits=logits,
    # A texture flow that is fitted to many views at once fits their mean: no sampling.
    by_responsibility=bool(weights.camera_temperature) and logits.shape[1] > 1,
    smoothed=smoothed,
    target=target,
    target_loss=target_loss,
  )


def extension_terms(
  extended: Extended,
  prediction: Prediction,
  batch: Batch,
  probabilities: Float[Array, "B K"],
  spec: ObjectiveSpec,
) -> dict[str, Float[Array, "B"]]:
  """The terms that the paper does not have.

  Args:
    extended: from `extend`.
    prediction: the network's output.
    batch: the images.
    probabilities: of the rendered hypotheses, from `Extended.probabilities`.
    spec: of the objective.
  """
  posterior = jax.lax.stop_gradient(probabilities)
  if extended.target is not None:
    hypotheses = prediction.cameras.shape[1]
    posterior = jax.nn.one_hot(extended.target, hypotheses, dtype=batch.mask.dtype)
  terms = {
    "camera_posterior": camera_posterior_loss(prediction.camera_logits, posterior),
    "shape_variance": shape_variance_loss(prediction.half_offsets),
  }
  if extended.target_loss is not None:
    terms["target_camera"] = extended.target_loss
  if spec.flow == "projected":
    terms["flow_correction"] = flow_correction_loss(prediction.flow_map)
  if prediction.mask_logits is not None:
    terms["segmentation"] = segmentation_loss(logits=prediction.mask_logits, mask=batch.mask)
  return terms


def scheduled_weights(
  weights: LossConfig, *, round_index: Int[Array, ""], round_step: Int[Array, ""]
) -> dict[str, Float[Array, ""]]:
  """The weights that change during a run: shape variance ends when the cameras have settled.

  Args:
    weights: of the config.
    round_index: of the round, from 0.
    round_step: steps taken in it.
  """
  settling = (round_index == 0) & (round_step < weights.shape_variance_stop)
  return {"shape_variance": jnp.where(settling, weights.shape_variance, 0.0)}
