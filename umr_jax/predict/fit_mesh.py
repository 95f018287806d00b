"""Meshes and cameras fitted to silhouettes, and to what the category's surface looks like."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from umr_jax.config.settings import Config
from umr_jax.geometry import camera, quaternion
from umr_jax.geometry.symmetry import symmetrize
from umr_jax.losses.canonical_features import feature_distance, unit_features, visible_vertices
from umr_jax.losses.mask import outline_loss, outline_points, soft_iou
from umr_jax.losses.shape import deformation_loss, flatten_loss, laplacian_loss
from umr_jax.models.assemble import assemble_vertices
from umr_jax.models.infer import Inference, texture_flow
from umr_jax.render.settings import RenderSettings
from umr_jax.types import Model, Topology, checked

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
  # Weights: of the mask, of its outline, of the canonical features, and of how near to the
  # template, how smooth, and how bent a shape is.
  mask: float
  outline: float
  features: float
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
      features=config.refine.features,
      deformation=config.loss.deformation,
      laplacian=config.refine.laplacian,
      flatten=config.loss.flatten,
    )


@checked
def optimize(found: Inference, model: Model, *, fitting: Fitting) -> Inference:
  """Fits shapes and cameras to the silhouettes that the network predicted as pixels.

  Silhouettes are easier to predict than shapes and cameras: a few gradient steps bring the mesh to
  lie where the network itself places the object. The objective weighs the mask, its outline, how
  near to the template a shape is, as training does, and how smoothly it departs from what the
  network predicted. A silhouette does not tell what lies inside of it: with canonical features,
  vertices go where the image looks as the category does there.

  Args:
    found: with `mask`; with `encoded` its image's features count, too.
    model: that predicted it.
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
  template, topology = model.template, model.topology
  appearance = _appearance_term(found, model, fitting)

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
      + appearance(projected[..., :2])
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


def _appearance_term(
  found: Inference, model: Model, fitting: Fitting
) -> Callable[[Float[Array, "B V 2"]], Float[Array, "B"]]:
  """The weighted distance from the canonical features of projected vertices; 0 without any.

  The vertices that count are those that are visible before anything moves.
  """
  canonical, encoded = model.canonical_features, found.encoded
  if canonical is None or encoded is None:
    return lambda projected: jnp.zeros(len(projected), projected.dtype)
  size, topology = fitting.render.image_size, model.topology
  features = unit_features(canonical.projection, encoded)
  visible = visible_vertices(found.vertices, found.camera, topology, image_size=size)
  return lambda projected: (
    fitting.features * feature_distance(canonical, features, projected, visible)
  )


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
