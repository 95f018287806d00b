"""The training objective of Li et al. 2020, term by term; what we add is in `extensions.extend`."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from umr_jax.config.settings import LossConfig
from umr_jax.geometry.sampling import average_pool
from umr_jax.losses import shape
from umr_jax.losses.adversary import adversary_term
from umr_jax.losses.camera import Hypotheses, camera_entropy, sample_hypothesis
from umr_jax.losses.extensions import extend
from umr_jax.losses.mask import soft_iou
from umr_jax.losses.renders import render_hypotheses, texture_cycle_term, texture_term
from umr_jax.losses.semantic import part_probability_term, part_vertices_term, prepare_semantics
from umr_jax.losses.spec import ObjectiveSpec
from umr_jax.losses.texture import texture_dt_loss
from umr_jax.models.assemble import assemble_vertices
from umr_jax.models.discriminator import DiscriminatorFn
from umr_jax.types import Batch, EMState, Prediction, Topology

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
  offsets, logits = prediction.half_offsets, prediction.camera_logits
  vertices = assemble_vertices(offsets, em_state.template, topology)  # V = V_template + Delta V
  parts = prepare_semantics(em_state, batch, parts_key, mask=mask, spec=spec)
  hypotheses = Hypotheses(  # supplementary 2.2
    cameras=prediction.cameras,
    probabilities=jax.nn.softmax(logits, axis=-1),
    chosen=sample_hypothesis(logits, batch.index, camera_key),
  )
  extended = extend(  # the extensions' hook: with the paper's settings it changes nothing
    hypotheses,
    prediction,
    em_state,
    batch,
    vertices=vertices,
    parts=parts,
    round_step=round_step,
    spec=spec,
  )
  hypotheses = extended.hypotheses
  renders = render_hypotheses(
    vertices,
    hypotheses.cameras,
    hypotheses.chosen,
    alpha=hypotheses.alpha,
    flow_map=prediction.flow_map,
    image=batch.image,
    part_texels=None if parts is None else parts.texels,
    spec=spec,
  )
  mask_losses = 1.0 - soft_iou(alpha=renders.alpha, mask=mask[:, None])
  # Probabilities get their gradient from the mask term alone.
  fixed = jax.lax.stop_gradient(hypotheses.probabilities)
  terms = {
    "mask": jnp.sum(hypotheses.probabilities * mask_losses, axis=-1),  # section 3.2: E[1 - IoU]
    "texture": texture_term(renders, fixed, image, mask, spec),  # section 3.3
    "texture_dt": texture_dt_loss(flow=renders.flow, barrier=batch.barrier),  # the release's
  }
  if parts is not None and weights.part_probability:  # equation 2: L_sp
    terms["part_probability"] = part_probability_term(parts, renders)
  if parts is not None and weights.part_vertices:  # equation 3: E[L_sv]
    terms["part_vertices"] = jnp.sum(fixed * part_vertices_term(parts, hypotheses.cameras), axis=-1)
  terms["texture_cycle"] = texture_cycle_term(renders, topology)  # section 3.3: L_tcyc
  terms |= _shape_terms(vertices, offsets, topology)
  terms["camera_entropy"] = camera_entropy(logits)  # the release's
  if discriminator is not None:  # supplementary equation 1: L_adv
    terms["adversary"] = adversary_term(discriminator, vertices, renders, batch, view_key, spec)
  terms |= extended.terms
  now = term_weights(weights, round_index=em_state.round, round_step=round_step) | extended.weights
  total, metrics = _weighted_sum({name: jnp.mean(values) for name, values in terms.items()}, now)
  confidence = jnp.max(jax.nn.softmax(logits, axis=-1), axis=-1)
  return total, metrics | {"camera_confidence": jnp.mean(confidence)}


def _shape_terms(
  vertices: Float[Array, "B V 3"], offsets: Float[Array, "B Vh 3"], topology: Topology
) -> dict[str, Float[Array, "B"]]:
  """The terms that no image enters."""
  return {
    "laplacian": shape.laplacian_loss(vertices, topology),  # supplementary 2.2: smoothness
    "flatten": shape.flatten_loss(vertices, topology),  # the release's, likewise
    "edge": shape.edge_loss(vertices, topology),  # supplementary 2.2: irregularly sized faces
    "deformation": shape.deformation_loss(offsets),  # section 3.2: |Delta V|
    "orientation": shape.orientation_loss(vertices),  # the release's
  }


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
