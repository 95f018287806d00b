"""Test-time optimisation: each image's shape and camera, fitted to its predicted silhouette."""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Bool, Float

from umr_jax.config.settings import Config
from umr_jax.geometry import camera, quaternion
from umr_jax.geometry.symmetry import symmetrize
from umr_jax.losses.mask import outline_loss, outline_points, soft_iou
from umr_jax.losses.shape import deformation_loss, flatten_loss, laplacian_loss
from umr_jax.models.assemble import assemble_vertices
from umr_jax.models.infer import Inference, infer, texture_flow
from umr_jax.models.view_template import view_cameras, view_probabilities
from umr_jax.render.settings import RenderSettings
from umr_jax.types import Model, Template, Topology, ViewTemplate, checked

# Points on the outline of a silhouette, at most: those of 48 x 48 pixels have fewer.
_OUTLINE = 256
# Changes to B predictions: offsets [B, Vh, 3], the logarithm of the scale [B, 1], the translation
# [B, 2] and the quaternion [B, 4].
Changes = dict[str, Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitting:
  """How meshes are fitted to silhouettes."""

  steps: int
  learning_rate: float  # at first; object units, image units, or half radians a step
  render: RenderSettings  # of the silhouettes
  # Weights: of the mask, of its outline, and of how near to the template, how smooth, and how bent
  # a shape is.
  mask: float
  outline: float
  deformation: float
  laplacian: float
  flatten: float

  @classmethod
  def from_config(cls, config: Config) -> "Fitting":
    """What a config asks for: `refine`, and otherwise weights as in training.

    Renders are twice as large as in training, for the thin parts, but no larger than the images.
    """
    return cls(
      steps=config.refine.steps,
      learning_rate=config.refine.learning_rate,
      render=RenderSettings(
        image_size=min(2 * config.render_size, config.data.image_size),
        sigma=config.render.sigma,
        dist_eps=config.render.dist_eps,
        antialias=config.render.antialias,
      ),
      mask=config.loss.mask,
      outline=config.refine.outline,
      deformation=config.loss.deformation,
      laplacian=config.refine.laplacian,
      flatten=config.loss.flatten,
    )


def with_steps(config: Config, steps: int | None) -> Config:
  """The config with another number of steps of test-time optimisation; its own for None.

  Args:
    config: of a run.
    steps: of the optimizer; 0 for the network alone.

  Raises:
    ValueError: for steps where the network predicts no silhouettes.
  """
  if steps is None:
    return config
  return dataclasses.replace(config, refine=dataclasses.replace(config.refine, steps=steps))


@struct.dataclass
class KnownMasks:
  """Silhouettes of B crops that are known without the network, of those images that have one."""

  values: Float[Array, "B S S"]
  known: Bool[Array, "B"]  # where not, `values` mean nothing


class InferWithMasks(Protocol):
  """Reconstructs images, some of whose silhouettes may be known; also a `models.infer.Infer`."""

  def __call__(self, model: Model, images: Array, masks: KnownMasks | None = None) -> Inference:
    """Pure, and ready to be jitted."""
    ...


def make_infer(config: Config) -> InferWithMasks:
  """`models.infer.infer`, followed by test-time optimisation where the config asks for steps.

  Where the model has a template for it, there is a posterior over views beside the cameras.

  Args:
    config: of the round whose network it is (`Config.at_round`).

  Returns:
    infer(model, images, masks=None): where an image's mask is known, it counts in place of the one
    that the network predicts.
  """
  fitting = Fitting.from_config(config)

  def infer_and_optimize(model: Model, images: Array, masks: KnownMasks | None = None) -> Inference:
    found = infer(model, images)
    if masks is not None:
      found = with_known_masks(found, masks)
    if fitting.steps:
      found = optimize(found, model.template, model.topology, fitting=fitting)
    return with_views(found, model.view_template)

  return infer_and_optimize


@checked
def with_known_masks(found: Inference, masks: KnownMasks) -> Inference:
  """Predictions with the silhouettes that are known in place of those that the network predicted.

  Args:
    found: with `mask`.
    masks: of the same images.
  """
  if found.mask is None:
    return found
  given = jax.image.resize(masks.values, found.mask.shape, "linear")
  mask = jnp.where(masks.known[:, None, None], given, found.mask)
  return dataclasses.replace(found, mask=mask)


@checked
def with_views(found: Inference, template: ViewTemplate | None) -> Inference:
  """Predictions with a posterior over views, which their silhouettes and encoded images give.

  Args:
    found: with `mask` and `encoded`; without one of them, they stay as they are.
    template: of the category; without one, likewise.
  """
  if template is None or found.mask is None or found.encoded is None:
    return found
  return dataclasses.replace(
    found,
    encoded=None,
    view_probs=view_probabilities(template, found.encoded, found.mask),
    view_cameras=view_cameras(template, found.mask),
  )


@checked
def optimize(
  found: Inference, template: Template, topology: Topology, *, fitting: Fitting
) -> Inference:
  """Fits shapes and cameras to the silhouettes that the network predicted as pixels.

  Silhouettes are easier to predict than shapes and cameras: a few gradient steps bring the mesh to
  lie where the network itself places the object. The objective weighs the mask, its outline, how
  near to the template a shape is, as training does, and how smoothly it departs from what the
  network predicted.

  Args:
    found: with `mask`.
    template: what the offsets are added to.
    topology: of the meshes.
    fitting: how.

  Returns:
    New offsets, vertices, most probable camera and, with model.flow=projected, flow
    (`texture_flow`). Probabilities, other cameras and the code are the network's.

  Raises:
    ValueError: for a prediction without silhouettes.

  Departs: Li et al. 2020 predict in one pass.
  """
  if found.mask is None:
    raise ValueError("the network predicts no silhouettes that a mesh could be fitted to")
  size = fitting.render.image_size
  mask = jax.image.resize(found.mask, (len(found.mask), size, size), "linear")
  points, weights = outline_points(found.mask, count=min(_OUTLINE, found.mask[0].size))

  def moved(changes: Changes) -> tuple[Array, Array, Array]:
    offsets = found.half_offsets + changes["offsets"]
    vertices = assemble_vertices(offsets, template, topology)
    return offsets, vertices, moved_camera(found.camera, changes)

  def objective(changes: Changes) -> Array:
    offsets, vertices, cameras = moved(changes)
    projected = camera.project(vertices, cameras)
    alpha = fitting.render.soft_silhouette(camera.face_vertices(projected, topology.faces))
    departed = symmetrize(changes["offsets"], num_center=topology.num_center)
    values = (
      fitting.mask * (1.0 - soft_iou(alpha=alpha, mask=mask))
      + fitting.outline * outline_loss(projected[..., :2], points, weights)
      + fitting.laplacian * laplacian_loss(departed, topology)
      + fitting.flatten * flatten_loss(vertices, topology)
      + fitting.deformation * deformation_loss(offsets)
    )
    # A sum: each image is fitted by itself.
    return jnp.sum(values)

  count = len(found.camera)
  still = _no_camera_changes(count, found.camera.dtype)
  nothing = {"offsets": jnp.zeros_like(found.half_offsets), **still}
  changes = _descend(objective, nothing, steps=fitting.steps, rate=fitting.learning_rate)
  offsets, vertices, cameras = moved(changes)
  best = jnp.argmax(found.camera_probs, axis=-1)
  every = found.cameras.at[jnp.arange(count), best].set(cameras)
  fitted = dataclasses.replace(
    found,
    half_offsets=offsets,
    vertices=vertices,
    camera=cameras,
    cameras=every,
    optimized=True,
  )
  flow_map = texture_flow(fitted, topology, height=found.flow_map.shape[1])
  return dataclasses.replace(fitted, flow_map=flow_map)


@checked
def fit_cameras(
  cameras: Float[Array, "B 7"],
  vertices: Float[Array, "B V 3"],
  masks: Float[Array, "B S S"],
  topology: Topology,
  *,
  fitting: Fitting,
) -> Float[Array, "B 7"]:
  """Fits cameras to silhouettes under meshes that stay as they are.

  Args:
    cameras: to begin with.
    vertices: of every image's mesh, in object space.
    masks: the silhouettes, of any size.
    topology: of the meshes.
    fitting: how; the weights of shapes have no meaning here.

  Departs: the cameras of Li et al. 2020 come from the network alone.
  """
  size = fitting.render.image_size
  mask = jax.image.resize(masks, (len(masks), size, size), "linear")

  def objective(changes: Changes) -> Array:
    corners = camera.project_faces(vertices, moved_camera(cameras, changes), topology.faces)
    # A sum: each image is fitted by itself.
    return jnp.sum(1.0 - soft_iou(alpha=fitting.render.soft_silhouette(corners), mask=mask))

  still = _no_camera_changes(len(cameras), cameras.dtype)
  changes = _descend(objective, still, steps=fitting.steps, rate=fitting.learning_rate)
  return moved_camera(cameras, changes)


def _no_camera_changes(count: int, dtype: jnp.dtype) -> Changes:
  sizes = {"scale": 1, "translation": 2, "quaternion": 4}
  return {name: jnp.zeros((count, size), dtype) for name, size in sizes.items()}


def moved_camera(before: Float[Array, "B 7"], changes: Changes) -> Float[Array, "B 7"]:
  """Cameras with these changes.

  Args:
    before: the network's.
    changes: "scale", a logarithm, "translation" and "quaternion", both added.
  """
  found = camera.Camera.unpack(before)
  return camera.Camera(
    scale=found.scale * jnp.exp(changes["scale"][:, 0]),
    translation=found.translation + changes["translation"],
    quaternion=quaternion.normalize(found.quaternion + changes["quaternion"]),
  ).pack()


def _descend(
  objective: Callable[[Changes], Array], start: Changes, *, steps: int, rate: float
) -> Changes:
  """Minimizes by Adam, whose steps are about as long as its rate whatever the gradients' scale.

  The rate falls to zero: at one that stays, the outlines jitter, and what is rounded differently
  ends elsewhere.
  """
  optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

  def step(_: int, carry: tuple[Changes, optax.OptState]) -> tuple[Changes, optax.OptState]:
    changes, state = carry
    updates, state = optimizer.update(jax.grad(objective)(changes), state)
    return optax.apply_updates(changes, updates), state

  # Optax counts its steps as integers and multiplies them into its rates.
  with jax.numpy_dtype_promotion("standard"):
    changes, _ = jax.lax.fori_loop(0, steps, step, (start, optimizer.init(start)))
  return changes
