"""After the network: each picture's shape and camera, fitted to the silhouette that it sees."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from umr_jax.config.settings import Config
from umr_jax.geometry import camera, quaternion
from umr_jax.geometry.symmetry import symmetrize
from umr_jax.losses.mask import mask_iou_loss
from umr_jax.losses.shape import deformation_loss, flatten_loss, laplacian_loss
from umr_jax.models.infer import Infer, Inference, trained, with_tied_flow
from umr_jax.render import soft_silhouette
from umr_jax.types import EMState, Template, Topology, checked, network_round

# Changes to B predictions: offsets [B, Vh, 3], the logarithm of the scale [B, 1], the translation
# [B, 2] and the quaternion [B, 4].
Changes = dict[str, Array]


def with_steps(config: Config, steps: int | None) -> Config:
  """The config with another number of steps; its own for None.

  Raises:
    ValueError: for steps where the network predicts no silhouettes.
  """
  if steps is None:
    return config
  return dataclasses.replace(config, refine=dataclasses.replace(config.refine, steps=steps))


def reconstructor(config: Config, em_state: EMState, *, step: int) -> tuple[Infer, Topology]:
  """What reconstructs photographs with a checkpoint's parameters, refined if the config says so.

  Args:
    config: of the run.
    em_state: of the checkpoint.
    step: of the checkpoint.

  Returns:
    As `models.infer.trained`: infer(params, batch_stats, template, images), and the mesh. The
    function takes silhouettes that are known, too; see `refining`.
  """
  infer, topology = trained(config, em_state, step=step)
  config = config.at_round(network_round(em_state, step))
  return refining(infer, topology, config=config), topology


def refining(infer: Infer, topology: Topology, *, config: Config) -> Infer:
  """`infer`, with its predictions refined where the config asks for steps.

  As a last argument it may be given masks [B, S, S] to fit to, NaN where a picture's is not known.
  """

  def refined(
    params: Any, batch_stats: Any, template: Template, images: Array, masks: Array | None = None
  ) -> Inference:
    found = infer(params, batch_stats, template, images)
    if not config.refine.steps:
      return found
    if masks is not None:
      found = with_known_masks(found, masks)
    return refine(found, template, topology, config=config)

  return refined


@checked
def with_known_masks(found: Inference, masks: Float[Array, "B S S"]) -> Inference:
  """Predictions with the silhouettes that are known in place of those that the network saw.

  Args:
    found: with `mask`.
    masks: of the same pictures; NaN where a picture's is not known.
  """
  if found.mask is None:
    return found
  given = jax.image.resize(masks, found.mask.shape, "linear")
  known = jnp.all(jnp.isfinite(masks), axis=(1, 2))[:, None, None]
  return dataclasses.replace(found, mask=jnp.where(known, given, found.mask))


@checked
def refine(
  found: Inference, template: Template, topology: Topology, *, config: Config
) -> Inference:
  """Fits shapes and cameras to the silhouettes that the network predicted as pixels.

  Silhouettes are easier to see than shapes and cameras are: a few gradient steps bring the mesh to
  lie where the network itself sees the object. They weigh the mask, and how near to the template a
  shape is, as training does, and more than training does how smoothly it departs from it.

  Args:
    found: with `mask`.
    template: what shapes are told from.
    topology: of the meshes.
    config: `refine` says how long; renders are training's.

  Returns:
    New vertices, most probable camera and, with model.flow=projected, flow (`tied_flow`).
    Probabilities, other cameras and the code are the network's.

  Raises:
    ValueError: for a prediction without silhouettes.

  Departs: Li et al. 2020 predict in one pass.
  """
  if found.mask is None:
    raise ValueError("the network predicts no silhouettes that a mesh could be fitted to")
  half = jnp.asarray(template.half_vertices)
  start = found.vertices[:, : topology.num_half] - half[None]
  size = config.render_size
  mask = jax.image.resize(found.mask, (len(found.mask), size, size), "linear")
  weights, settings = config.loss, config.render

  def moved(changes: Changes) -> tuple[Array, Array, Array]:
    offsets = start + changes["offsets"]
    vertices = symmetrize(half[None] + offsets, num_center=topology.num_center)
    return offsets, vertices, _moved_camera(found.camera, changes)

  def objective(changes: Changes) -> Array:
    offsets, vertices, cameras = moved(changes)
    corners = camera.project_faces(vertices, cameras, topology.faces)
    alpha = soft_silhouette(
      corners,
      image_size=size,
      sigma=settings.sigma,
      dist_eps=settings.dist_eps,
      antialias=settings.antialias,
    )
    values = (
      weights.mask * mask_iou_loss(alpha=alpha, mask=mask)
      + config.refine.laplacian
      * laplacian_loss(symmetrize(offsets, num_center=topology.num_center), topology)
      + weights.flatten * flatten_loss(vertices, topology)
      + weights.deformation * deformation_loss(offsets)
    )
    # A sum: each picture is fitted by itself.
    return jnp.sum(values)

  count = len(start)
  nothing = {
    "offsets": jnp.zeros_like(start),
    "scale": jnp.zeros((count, 1), start.dtype),
    "translation": jnp.zeros((count, 2), start.dtype),
    "quaternion": jnp.zeros((count, 4), start.dtype),
  }
  changes = _descend(
    objective, nothing, steps=config.refine.steps, rate=config.refine.learning_rate
  )
  _, vertices, cameras = moved(changes)
  best = jnp.argmax(found.camera_probs, axis=-1)
  every = found.cameras.at[jnp.arange(count), best].set(cameras)
  fitted = dataclasses.replace(
    found, vertices=vertices, camera=cameras, cameras=every, refined=True
  )
  return fitted if found.flow_correction is None else with_tied_flow(fitted, topology)


def _moved_camera(before: Float[Array, "B 7"], changes: Changes) -> Float[Array, "B 7"]:
  scale = before[:, :1] * jnp.exp(changes["scale"])
  turned = quaternion.normalize(before[:, 3:] + changes["quaternion"])
  return jnp.concatenate([scale, before[:, 1:3] + changes["translation"], turned], axis=-1)


def _descend(
  objective: Callable[[Changes], Array], start: Changes, *, steps: int, rate: float
) -> Changes:
  """Adam, whose steps are about as long as its rate whatever the gradients' scale.

  The rate falls to zero: at one that stays, the outlines jitter, and what is rounded differently
  ends elsewhere.
  """
  optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

  def step(_: int, carry: tuple[Changes, Any]) -> tuple[Changes, Any]:
    changes, state = carry
    updates, state = optimizer.update(jax.grad(objective)(changes), state)
    return optax.apply_updates(changes, updates), state

  # Optax counts its steps as integers and multiplies them into its rates.
  with jax.numpy_dtype_promotion("standard"):
    changes, _ = jax.lax.fori_loop(0, steps, step, (start, optimizer.init(start)))
  return changes
