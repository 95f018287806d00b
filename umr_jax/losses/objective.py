"""The training objective of Li et al. 2020, term by term; what we add is in `extensions`."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from umr_jax.config.settings import LossConfig
from umr_jax.losses import shape
from umr_jax.losses.adversary import adversary_term
from umr_jax.losses.camera import camera_entropy, sample_hypothesis
from umr_jax.losses.extensions import extend, extension_terms, scheduled_weights
from umr_jax.losses.mask import mask_iou_loss
from umr_jax.losses.renders import average_pool, render_hypotheses, texture_cycle_term, texture_term
from umr_jax.losses.semantic import part_probability_term, prepare_semantics
from umr_jax.losses.spec import ObjectiveSpec
from umr_jax.losses.texture import texture_dt_loss
from umr_jax.models.assemble import assemble_vertices
from umr_jax.models.discriminator import DiscriminatorFn
from umr_jax.types import Batch, EMState, Prediction

Scalar = Float[Array, ""]


def total_loss(
  prediction: Prediction,
  em_state: EMState,
  batch: Batch,
  key: PRNGKeyArray,
  *,
  round_step: Int[Array, ""],
  spec: ObjectiveSpec,
  discriminator: DiscriminatorFn | None = None,
) -> tuple[Scalar, dict[str, Scalar]]:
  """The weighted sum of all terms, averaged over the images of the batch.

  Args:
    prediction: the network's output for the batch.
    em_state: the template and canonical map, held fixed, and the round; NumPy arrays serve, too.
    batch: images, masks and part maps.
    key: for the samples of a camera, of points on parts and of a random view per image.
    round_step: steps taken in this round.
    spec: what never changes during training.
    discriminator: with this step's parameters; without one there is no adversarial term.

  Returns:
    The objective, and metrics: `loss/NAME` unweighted, `weighted/NAME`, `loss/total`, `mask_iou`
    (expected over the hypotheses) and `camera_confidence` (the largest probability).

  Source: Li et al. 2020, section 3 and supplementary 2.2.
  """
  prediction, em_state, batch = jax.tree.map(jnp.asarray, (prediction, em_state, batch))
  topology, weights = spec.topology, spec.weights
  camera_key, parts_key, view_key = jax.random.split(key, 3)
  image, mask = (average_pool(x, spec.image_size) for x in (batch.image, batch.mask))
  offsets = prediction.half_offsets
  vertices = assemble_vertices(offsets, em_state.template, topology)  # V = V_template + Delta V
  extended = extend(prediction, vertices, batch, spec)  # the extensions' hook
  parts = prepare_semantics(em_state, batch, extended.cameras, parts_key, mask=mask, spec=spec)

  def explain(alpha: Float[Array, "B K H W"]) -> tuple[Float[Array, "B K"], Float[Array, "B K"]]:
    """The mask loss under every hypothesis, and the probability of each."""
    losses = mask_iou_loss(alpha=alpha, mask=jnp.broadcast_to(mask[:, None], alpha.shape))
    return losses, extended.probabilities(losses, parts, weights)

  sampled = sample_hypothesis(extended.logits, batch.index, camera_key)
  renders = render_hypotheses(
    vertices,
    extended.cameras,
    extended.choice(sampled, explain),
    flow_map=prediction.flow_map,
    image=batch.image,
    part_texels=None if parts is None else parts.texels,
    spec=spec,
  )
  mask_losses, probabilities = explain(renders.alpha)
  fixed = jax.lax.stop_gradient(probabilities)  # they get their gradient from the mask term alone
  terms = {
    "mask": jnp.sum(probabilities * mask_losses, axis=-1),  # section 3.2: E[1 - IoU]
    "texture": texture_term(renders, fixed, image, mask, spec),  # section 3.3
    "texture_dt": texture_dt_loss(flow=renders.flow, barrier=batch.barrier),  # the release's
  }
  if parts is not None and parts.texels is not None:
    terms["part_probability"] = part_probability_term(parts, renders)  # equation 2: L_sp
  if parts is not None and parts.vertex_losses is not None:
    terms["part_vertices"] = jnp.sum(fixed * parts.vertex_losses, axis=-1)  # equation 3: L_sv
  terms["texture_cycle"] = texture_cycle_term(renders, topology)  # section 3.3: L_tcyc
  terms |= {
    "laplacian": shape.laplacian_loss(extended.smoothed, topology),  # supplementary 2.2: smoothness
    "flatten": shape.flatten_loss(vertices, topology),  # the release's, likewise
    "edge": shape.edge_loss(vertices, topology),  # supplementary 2.2: irregularly sized faces
    "deformation": shape.deformation_loss(offsets),  # section 3.2: |Delta V|
    "orientation": shape.orientation_loss(vertices),  # the release's
    "camera_entropy": camera_entropy(prediction.camera_logits),  # the release's
  }
  if discriminator is not None:  # supplementary equation 1: L_adv
    terms["adversary"] = adversary_term(discriminator, vertices, renders, batch, view_key, spec)
  terms |= extension_terms(extended, prediction, batch, probabilities, spec)
  now = term_weights(weights, round_index=em_state.round, round_step=round_step)
  total, metrics = _weighted_sum({name: jnp.mean(values) for name, values in terms.items()}, now)
  confidence = jnp.max(jax.nn.softmax(prediction.camera_logits, axis=-1), axis=-1)
  return total, metrics | {"camera_confidence": jnp.mean(confidence)}


def term_weights(
  weights: LossConfig, *, round_index: Int[Array, ""], round_step: Int[Array, ""]
) -> dict[str, float | Scalar]:
  """Every term's weight, the setting of its name, at this moment of the run.

  The orientation prior flattens the first shapes towards the mirror plane, so that the cameras
  learn a side view; the deformation term may wait for a template, which later rounds have.

  Args:
    weights: of the config.
    round_index: of the round, from 0.
    round_step: steps taken in it.

  Source: Li et al. 2020, supplementary 2.2; weights and moments from the released configuration.
  """
  orienting = (round_index == 0) & (round_step < weights.orientation_stop)
  deforming = (round_index > 0) | (round_step >= weights.deformation_start)
  return {
    **vars(weights),
    "deformation": jnp.where(deforming, weights.deformation, 0.0),
    "orientation": jnp.where(orienting, weights.orientation, 0.0),
    **scheduled_weights(weights, round_index=round_index, round_step=round_step),
  }


def _weighted_sum(
  means: dict[str, Scalar], weights: dict[str, float | Scalar]
) -> tuple[Scalar, dict[str, Scalar]]:
  """The objective, and the metrics of its terms."""
  weighted = {name: weights[name] * mean for name, mean in means.items()}
  total = sum(weighted.values(), start=jnp.float32(0.0))
  metrics = {f"loss/{name}": mean for name, mean in means.items()}
  metrics |= {f"weighted/{name}": value for name, value in weighted.items()}
  return total, metrics | {"loss/total": total, "mask_iou": 1.0 - means["mask"]}
