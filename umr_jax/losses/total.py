"""The training objective: the only place that knows weights and the expectation over cameras."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from umr_jax.config.settings import LossConfig, RenderConfig
from umr_jax.geometry.symmetry import symmetrize
from umr_jax.losses.adversary import adversarial_loss, unseen_cameras
from umr_jax.losses.counting import sample_hypothesis, term_weights, weigh_hypotheses
from umr_jax.losses.deformation import deformation_loss, shape_variance_loss
from umr_jax.losses.drawing import Drawing, average_pool, choose_rows, draw, project_faces
from umr_jax.losses.edge import edge_loss
from umr_jax.losses.entropy import camera_entropy, posterior_loss
from umr_jax.losses.flatten import flatten_loss
from umr_jax.losses.flow_correction import correction_loss
from umr_jax.losses.laplacian import laplacian_loss
from umr_jax.losses.mask import mask_iou_loss
from umr_jax.losses.orientation import orientation_loss
from umr_jax.losses.segmentation import segmentation_loss
from umr_jax.losses.semantic import probability_term, semantics
from umr_jax.losses.target_camera import target_camera_loss
from umr_jax.losses.texture import TextureDistance, texture_distance
from umr_jax.losses.texture_cycle import texture_cycle_loss
from umr_jax.losses.texture_dt import texture_dt_loss
from umr_jax.models.assemble import assemble_vertices, expand_rows
from umr_jax.models.camera_heads import nearest_hypothesis
from umr_jax.models.discriminator import Judge
from umr_jax.render import soft_rasterize, soft_silhouette
from umr_jax.types import Batch, EMState, Prediction, Topology


def texture_terms(
  drawing: Drawing,
  *,
  batch: Batch,
  alpha: Float[Array, "B H W"],
  mask: Float[Array, "B H W"],
  counting: Float[Array, "B K"],
  topology: Topology,
  distance: TextureDistance,
) -> dict[str, Float[Array, "B"]]:
  """The three terms of the texture flow, under one camera per image.

  The gradient reaches the flow, and through `alpha` the silhouette, as in the released code. Where
  the drawing has the colours of every hypothesis, the distance is their expectation.

  Source: Li et al. 2020, section 3.3.
  """
  fragments, image = drawing.fragments, average_pool(batch.image, mask.shape[-1])
  if drawing.colors is None:
    gap = distance(rendered=fragments.rgba[..., :3], alpha=alpha, image=image, mask=mask)
  else:
    gaps = distance(
      rendered=drawing.colors, alpha=drawing.alpha, image=image[:, None], mask=mask[:, None]
    )
    gap = jnp.sum(jax.lax.stop_gradient(counting) * gaps, axis=-1)
  return {
    "texture": gap,
    "texture_dt": texture_dt_loss(flow=drawing.flow, barrier=batch.barrier),
    "texture_cycle": texture_cycle_loss(
      flow=expand_rows(drawing.flow, topology),
      landing=fragments.landing,
      visible=fragments.visible,
    ),
  }


def adversary_term(
  judge: Judge,
  *,
  vertices: Float[Array, "B V 3"],
  camera: Float[Array, "B 7"],
  texels: Float[Array, "B F T 3"],
  batch: Batch,
  alpha: Float[Array, "B H W"],
  mask: Float[Array, "B H W"],
  key: PRNGKeyArray,
  topology: Topology,
  weights: LossConfig,
  settings: RenderConfig,
) -> Float[Array, "B"]:
  """What the judge makes of each mesh from another side, which teaches the shape alone.

  With the domain "mask" the silhouettes under the predicted cameras are what is real; with "color"
  the photographs of the objects on black.

  Source: Li et al. 2020, supplementary equation 1 and 2.2. Departs: rendered colours are multiplied
    with their coverage, like the photographs with their masks.
  """
  cameras = unseen_cameras(camera, batch.index, key)
  corners = project_faces(vertices, cameras[:, None], topology)[:, 0]
  options: dict[str, Any] = dict(
    image_size=mask.shape[-1],
    sigma=settings.sigma,
    dist_eps=settings.dist_eps,
    antialias=settings.antialias,
  )
  if weights.adversary_domain == "mask":
    fake, real = soft_silhouette(corners, **options)[..., None], alpha[..., None]
  else:
    texels = jax.lax.stop_gradient(texels)
    rgba = soft_rasterize(corners, texels, gamma=settings.gamma, **options)
    fake = rgba[..., :3] * rgba[..., 3:]
    real = average_pool(batch.image, mask.shape[-1]) * mask[..., None]
  return adversarial_loss(judge, real=real, fake=fake, reversal=weights.adversary_reversal)


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
  judge: Judge | None = None,
  flow: str = "free",
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
  """The weighted sum of all terms, averaged over the images of the batch.

  The mask term is the expectation over the camera hypotheses, and reaches shape, cameras and their
  probabilities; or, with a `camera_temperature`, it is weighted by responsibility, and
  `camera_posterior` teaches the probabilities. Texture is rendered under one camera per image:
  drawn with its probability, or the one that answers most for the mask.

  Where the state has a canonical part map and the batch has parts, the semantic terms that have a
  weight join in. The vertex term counts like the mask's, but never teaches probabilities by itself;
  with a `camera_temperature` a hypothesis is responsible for both. Where the batch has cameras from
  the bank, the hypothesis in whose share of the circle it lies answers alone; no other is drawn.

  Args:
    prediction: the network's output for the batch.
    em_state: the template, and the round, which sets what is active.
    batch: images and masks.
    key: for the draws of a camera, of points on parts and of an unseen view per image.
    round_step: steps taken in this round.
    topology: the mesh.
    weights: the weight of every term.
    settings: of the rasterizer.
    image_size: pixels per side of the renders; divides the batch's image size.
    distance: of a textured render from the image.
    judge: of unseen views; without one there is no adversarial term.
    flow: "free", or "projected" where the network's flow is added to what the camera sees.

  Returns:
    The objective, and metrics: `loss/NAME` unweighted, `weighted/NAME`, `loss/total`, `mask_iou`
    (expected over the hypotheses; with a bank, of the one that answers) and `camera_confidence`
    (the largest probability).

  Source: Li et al. 2020, section 3 and supplementary 2.2.
  """
  vertices = assemble_vertices(prediction.half_offsets, em_state.template, topology)
  mask = average_pool(batch.mask, image_size)
  logits = prediction.camera_logits

  camera_key, parts_key, view_key = jax.random.split(key, 3)
  cameras, bank_values = prediction.cameras, None
  if batch.target_camera is not None:
    # The search has compared all sides: the hypothesis of the found one answers, and it alone.
    called = nearest_hypothesis(batch.target_camera[:, 3:], hypotheses=cameras.shape[1])
    cameras = choose_rows(cameras, called)[:, None]
    bank_values = target_camera_loss(cameras=cameras, found=batch.target_camera)[:, 0]
    logits = jnp.zeros_like(logits[:, :1])
  parts = semantics(
    em_state, batch, cameras, parts_key, mask=mask, topology=topology, weights=weights
  )

  def weigh(alpha: Float[Array, "B K H W"]) -> tuple[Float[Array, "B K"], Float[Array, "B K"]]:
    values = mask_iou_loss(alpha=alpha, mask=jnp.broadcast_to(mask[:, None], alpha.shape))
    besides: Array | float = 0.0
    if parts is not None and parts.vertex_values is not None:
      besides = weights.part_vertices * parts.vertex_values
    explained = values + besides / max(weights.mask, 1e-6)
    return values, weigh_hypotheses(explained, logits, weights)

  # With responsibilities the best guess, rather than a draw: a flow asked to fit many views at once
  # fits their mean.
  late = weights.camera_temperature and logits.shape[1] > 1
  chosen = None if late else sample_hypothesis(logits, batch.index, camera_key)
  drawing = draw(
    vertices,
    cameras,
    chosen,
    prediction.flow_map,
    batch,
    choose=lambda alpha: jnp.argmax(weigh(alpha)[1], axis=-1),
    parts=None if parts is None else parts.texels,
    part_cameras=weights.part_cameras,
    every_color=weights.texture_cameras == "all",
    flow=flow,
    topology=topology,
    settings=settings,
    image_size=image_size,
  )
  mask_values, counting = weigh(drawing.alpha)
  if chosen is None:
    chosen = jnp.argmax(counting, axis=-1)
  still = jax.lax.stop_gradient(counting)
  answering = still
  if bank_values is not None:
    answering = jax.nn.one_hot(called, prediction.cameras.shape[1], dtype=mask.dtype)
  terms = {
    "mask": jnp.sum(counting * mask_values, axis=-1),
    "camera_posterior": posterior_loss(prediction.camera_logits, answering),
    "laplacian": laplacian_loss(
      symmetrize(prediction.half_offsets, num_center=topology.num_center)
      if weights.smooth_offsets
      else vertices,
      topology,
    ),
    "flatten": flatten_loss(vertices, topology),
    "edge": edge_loss(vertices, topology),
    "deformation": deformation_loss(prediction.half_offsets),
    "shape_variance": shape_variance_loss(prediction.half_offsets),
    "orientation": orientation_loss(vertices),
    "camera_entropy": camera_entropy(prediction.camera_logits),
    **texture_terms(
      drawing,
      batch=batch,
      alpha=choose_rows(drawing.alpha, chosen),
      mask=mask,
      counting=counting,
      topology=topology,
      distance=distance,
    ),
  }
  if flow == "projected":
    terms["flow_correction"] = correction_loss(prediction.flow_map)
  if bank_values is not None:
    terms["target_camera"] = bank_values
  if parts is not None and parts.vertex_values is not None:
    # Probabilities learn from the silhouettes alone, and from responsibilities.
    terms["part_vertices"] = jnp.sum(still * parts.vertex_values, axis=-1)
  if parts is not None and parts.texels is not None:
    terms["part_probability"] = probability_term(parts, drawing)
  if judge is not None:
    terms["adversary"] = adversary_term(
      judge,
      vertices=vertices,
      camera=choose_rows(cameras, chosen),
      texels=drawing.texels,
      batch=batch,
      alpha=choose_rows(drawing.alpha, chosen),
      mask=mask,
      key=view_key,
      topology=topology,
      weights=weights,
      settings=settings,
    )
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
    "camera_confidence": jnp.mean(
      jnp.max(jax.nn.softmax(prediction.camera_logits, axis=-1), axis=-1)
    ),
  }
  return total, metrics
