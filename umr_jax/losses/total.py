"""The training objective: the only place that knows weights and the expectation over cameras."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from umr_jax.config import LossConfig, RenderConfig
from umr_jax.losses.deformation import deformation_loss, deviation_loss
from umr_jax.losses.drawing import Drawing, average_pool, choose_rows, draw, project_faces
from umr_jax.losses.edge import edge_loss
from umr_jax.losses.entropy import camera_entropy, posterior_loss, responsibilities
from umr_jax.losses.flatten import flatten_loss
from umr_jax.losses.laplacian import laplacian_loss
from umr_jax.losses.mask import mask_iou_loss
from umr_jax.losses.orientation import orientation_loss
from umr_jax.losses.segmentation import segmentation_loss
from umr_jax.losses.texture import TextureDistance, texture_distance
from umr_jax.losses.texture_cycle import texture_cycle_loss
from umr_jax.losses.texture_dt import texture_dt_loss
from umr_jax.models.assemble import assemble_vertices, expand_rows
from umr_jax.types import Batch, EMState, Prediction, Topology, checked


@checked
def sample_hypothesis(
  logits: Float[Array, "B K"], index: Int[Array, "B"], key: PRNGKeyArray
) -> Int[Array, "B"]:
  """A camera hypothesis per image, drawn with its probability under the image's own key.

  Source: Li et al. 2020, supplementary 2.2; Insafutdinov and Dosovitskiy 2018.
  """
  keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
  return jax.vmap(jax.random.categorical)(keys, logits)


def texture_terms(
  drawing: Drawing,
  *,
  batch: Batch,
  alpha: Float[Array, "B H W"],
  mask: Float[Array, "B H W"],
  topology: Topology,
  distance: TextureDistance,
) -> dict[str, Float[Array, "B"]]:
  """The three terms of the texture flow, under one camera per image.

  The gradient reaches the flow, and through `alpha` the silhouette, as in the released code.

  Source: Li et al. 2020, section 3.3.
  """
  fragments = drawing.fragments
  return {
    "texture": distance(
      rendered=fragments.rgba[..., :3],
      alpha=alpha,
      image=average_pool(batch.image, mask.shape[-1]),
      mask=mask,
    ),
    "texture_dt": texture_dt_loss(flow=drawing.flow, barrier=batch.barrier),
    "texture_cycle": texture_cycle_loss(
      flow=expand_rows(drawing.flow, topology),
      landing=fragments.landing,
      visible=fragments.visible,
    ),
  }


def weigh_hypotheses(
  mask_values: Float[Array, "B K"], logits: Float[Array, "B K"], weights: LossConfig
) -> Float[Array, "B K"]:
  """How much each camera hypothesis counts.

  By probability, as in the paper; or, with a `camera_temperature`, by responsibility.
  """
  if not weights.camera_temperature:
    return jax.nn.softmax(logits, axis=-1)
  return responsibilities(
    mask_values, logits, temperature=weights.camera_temperature, prior=weights.camera_prior
  )


def term_weights(
  weights: LossConfig, *, round_index: Int[Array, ""], round_step: Int[Array, ""]
) -> dict[str, float | Float[Array, ""]]:
  """Every term's weight at this moment of the run.

  The orientation prior flattens the first shapes towards the mirror plane, so that the cameras
  learn a side view, and then lets go; the deformation term may wait for a template; the deviation
  term holds the shapes together until the cameras have settled.

  Source: Li et al. 2020, supplementary 2.2; weights and moments from the released configuration.
  """
  orienting = (round_index == 0) & (round_step < weights.orientation_stop)
  deforming = round_step >= weights.deformation_start
  settling = (round_index == 0) & (round_step < weights.deviation_stop)
  return {
    "mask": weights.mask,
    "segmentation": weights.segmentation,
    "texture": weights.texture,
    "texture_dt": weights.texture_dt,
    "texture_cycle": weights.texture_cycle,
    "laplacian": weights.laplacian,
    "flatten": weights.flatten,
    "edge": weights.edge,
    "deformation": jnp.where(deforming, weights.deformation, 0.0),
    "deviation": jnp.where(settling, weights.deviation, 0.0),
    "orientation": jnp.where(orienting, weights.orientation, 0.0),
    "camera_entropy": weights.camera_entropy,
    "camera_posterior": weights.camera_posterior,
  }


def total_loss(
  prediction: Prediction,
  em_state: EMState,
  batch: Batch,
  key: PRNGKeyArray,
  *,
  round_step: Int[Array, ""],
  topology: Topology,
  weights: LossConfig,
  settings: RenderConfig,
  image_size: int,
  distance: TextureDistance = texture_distance,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
  """The weighted sum of all terms, averaged over the images of the batch.

  The mask term is the expectation over the camera hypotheses, and reaches shape, cameras and their
  probabilities; or, with a `camera_temperature`, it is weighted by responsibility, and
  `camera_posterior` teaches the probabilities. Texture is rendered under one camera per image:
  drawn with its probability, or the one that answers most for the mask.

  Args:
    prediction: the network's output for the batch.
    em_state: the template, and the round, which sets what is active.
    batch: images and masks.
    key: for the draw of a camera per image.
    round_step: steps taken in this round.
    topology: the mesh.
    weights: the weight of every term.
    settings: of the rasterizer.
    image_size: pixels per side of the renders; divides the batch's image size.
    distance: of a textured render from the image.

  Returns:
    The objective, and metrics: `loss/NAME` unweighted, `weighted/NAME`, `loss/total`, `mask_iou`
    (expected over the hypotheses) and `camera_confidence` (the largest probability).

  Source: Li et al. 2020, section 3 and supplementary 2.2.
  """
  vertices = assemble_vertices(prediction.half_offsets, em_state.template, topology)
  mask = average_pool(batch.mask, image_size)
  logits = prediction.camera_logits

  def weigh(alpha: Float[Array, "B K H W"]) -> tuple[Float[Array, "B K"], Float[Array, "B K"]]:
    values = mask_iou_loss(alpha=alpha, mask=jnp.broadcast_to(mask[:, None], alpha.shape))
    return values, weigh_hypotheses(values, logits, weights)

  # With responsibilities the best guess, rather than a draw: a flow asked to fit many views at once
  # fits their mean.
  late = weights.camera_temperature and logits.shape[1] > 1
  chosen = None if late else sample_hypothesis(logits, batch.index, key)
  drawing = draw(
    project_faces(vertices, prediction.cameras, topology),
    chosen,
    prediction,
    batch,
    choose=lambda alpha: jnp.argmax(weigh(alpha)[1], axis=-1),
    topology=topology,
    settings=settings,
    image_size=image_size,
  )
  mask_values, counting = weigh(drawing.alpha)
  if chosen is None:
    chosen = jnp.argmax(counting, axis=-1)
  terms = {
    "mask": jnp.sum(counting * mask_values, axis=-1),
    "camera_posterior": posterior_loss(logits, jax.lax.stop_gradient(counting)),
    "laplacian": laplacian_loss(vertices, topology),
    "flatten": flatten_loss(vertices, topology),
    "edge": edge_loss(vertices, topology),
    "deformation": deformation_loss(prediction.half_offsets),
    "deviation": deviation_loss(prediction.half_offsets),
    "orientation": orientation_loss(vertices),
    "camera_entropy": camera_entropy(logits),
    **texture_terms(
      drawing,
      batch=batch,
      alpha=choose_rows(drawing.alpha, chosen),
      mask=mask,
      topology=topology,
      distance=distance,
    ),
  }
  if prediction.mask_logits is not None:
    terms["segmentation"] = segmentation_loss(logits=prediction.mask_logits, mask=batch.mask)
  now = term_weights(weights, round_index=em_state.round, round_step=round_step)
  means = {name: jnp.mean(values) for name, values in terms.items()}
  weighted = {name: now[name] * mean for name, mean in means.items()}
  total = sum(weighted.values(), start=jnp.float32(0.0))
  metrics = {f"loss/{name}": mean for name, mean in means.items()}
  metrics |= {f"weighted/{name}": value for name, value in weighted.items()}
  metrics |= {
    "loss/total": total,
    "mask_iou": 1.0 - means["mask"],
    "camera_confidence": jnp.mean(jnp.max(jax.nn.softmax(logits, axis=-1), axis=-1)),
  }
  return total, metrics
