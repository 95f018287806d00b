"""What the M-step wants to know of an image: how well it is explained, and what it would add."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Bool, Float, Int

from umr_jax.config.settings import RenderConfig
from umr_jax.geometry import camera
from umr_jax.geometry.sampling import bilinear_sample
from umr_jax.geometry.uv import mirrored_columns, uv_corners
from umr_jax.losses.drawing import average_pool
from umr_jax.losses.mask import soft_iou
from umr_jax.losses.texture import TextureDistance, texture_distance
from umr_jax.models.assemble import face_flow, sample_texels, uv_texture
from umr_jax.models.infer import infer
from umr_jax.render import rasterize, soft_rasterize
from umr_jax.types import Array, Batch, Model, Topology


@struct.dataclass
class Measurement:
  """One row per image of a batch; rows that are not `valid` only pad it."""

  index: Int[Array, "B"]
  valid: Bool[Array, "B"]
  silhouette_iou: Float[Array, "B"]  # rendered against its own mask
  texture_distance: Float[Array, "B"]
  silhouette: Float[Array, "B H W"]  # rendered
  half_offsets: Float[Array, "B Vh 3"]
  uv_parts: Float[Array, "B Hu Wu P1"] | None  # part map pulled back to the UV map


Measure = Callable[[Model, Batch], Measurement]


def make_measure(
  *,
  topology: Topology,
  settings: RenderConfig,
  image_size: int,
  uv_height: int,
  uv_projection: str = "flow",
  distance: TextureDistance = texture_distance,
) -> Measure:
  """The measurement of a batch, as a pure function; no augmentation, no noise, one camera.

  Args:
    topology: the mesh.
    settings: of the rasterizer.
    image_size: pixels per side of the renders.
    uv_height: rows of the maps that parts are pulled back to.
    uv_projection: where a point of the UV map looks for its part: where its "flow" says, as in the
      paper, or where the "camera" sees it, if it does.
    distance: of a textured render from the image.

  Returns:
    `measure(model, batch) -> Measurement`, by `models.infer.infer`: evaluation BatchNorm, z = mu,
    most probable camera.

  Source: Li et al. 2020, equation 1 (the pull-back of parts) and supplementary 2.1 (the scores).
  """

  def measure(model: Model, batch: Batch) -> Measurement:
    inferred = infer(model, batch.image)
    projected = camera.project(inferred.vertices, inferred.camera)
    faces = camera.face_vertices(projected, topology.faces)
    texels = sample_texels(batch.image, face_flow(inferred.flow_map, topology))
    options: dict[str, Any] = dict(
      image_size=image_size,
      sigma=settings.sigma,
      gamma=settings.gamma,
      dist_eps=settings.dist_eps,
      antialias=settings.antialias,
    )
    parts = None
    if batch.parts is not None and uv_projection == "camera":
      fragments = rasterize(faces, texels, **options)
      rgba = fragments.rgba
      parts = parts_in_view(
        batch.parts, projected[..., :2], fragments.visible, topology, uv_height=uv_height
      )
    else:
      rgba = soft_rasterize(faces, texels, **options)
      if batch.parts is not None:
        parts = uv_texture(batch.parts, inferred.flow_map)
    alpha, mask = rgba[..., 3], average_pool(batch.mask, image_size)
    return Measurement(
      index=batch.index,
      valid=batch.valid,
      silhouette_iou=soft_iou(alpha=alpha, mask=mask),
      texture_distance=distance(
        rendered=rgba[..., :3], alpha=alpha, image=average_pool(batch.image, image_size), mask=mask
      ),
      silhouette=alpha,
      half_offsets=inferred.half_offsets,
      uv_parts=parts,
    )

  return measure


def parts_in_view(
  parts: Float[Array, "B H W P1"],
  projected: Float[Array, "B V 2"],
  visible: Bool[Array, "B F"],
  topology: Topology,
  *,
  uv_height: int,
) -> Float[Array, "B Hu Wu P1"]:
  """Part maps as the mesh sees them: each point of the surface takes the part that is seen on it.

  Args:
    parts: of the images.
    projected: vertices in image space.
    visible: the faces that win a pixel.
    topology: the mesh.
    uv_height: rows of the result.

  Returns:
    Probabilities of the parts, and none of the background; zeros where the surface is hidden. A
    point and its mirror image share what either shows: their sum, 2 at most.
  """
  batch, vertices = projected.shape[:2]
  faces = jnp.broadcast_to(visible[..., None], (*visible.shape, 3)).reshape(batch, -1)
  seen = jnp.zeros((batch, vertices), bool).at[:, topology.faces.reshape(-1)].max(faces)
  corners, weights = uv_corners(topology, uv_height)
  places = jnp.einsum("hwk,bhwkc->bhwc", weights, projected[:, corners])
  shown = jnp.all(seen[:, corners], axis=-1)
  found = bilinear_sample(parts, places.reshape(batch, -1, 2)).reshape(*shown.shape, -1)
  # The surface is part of the object: where it is drawn beside the object it has learned nothing.
  found = jnp.where(shown[..., None], found, 0.0).at[..., 0].set(0.0)
  return found + found[:, :, mirrored_columns(uv_height)]


def on_host(measurement: Measurement) -> Measurement:
  """The measurement as NumPy arrays, without the rows that padded the batch."""
  arrays = jax.device_get(measurement)
  return jax.tree.map(lambda rows: rows[arrays.valid], arrays)
