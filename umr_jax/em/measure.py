"""What the M-step wants to know of an image: how well it is explained, and what it would add."""

from collections.abc import Callable
from typing import Any

import jax
from flax import struct
from jaxtyping import Bool, Float, Int

from umr_jax.config import RenderConfig
from umr_jax.geometry import camera
from umr_jax.losses.drawing import average_pool
from umr_jax.losses.mask import soft_iou
from umr_jax.losses.texture import TextureDistance, texture_distance
from umr_jax.models.assemble import face_flow, sample_texels, uv_texture
from umr_jax.models.infer import Infer
from umr_jax.render import soft_rasterize
from umr_jax.types import Array, Batch, Template, Topology


@struct.dataclass
class Measurement:
  """One row per image of a batch; rows that are not `valid` only pad it."""

  index: Int[Array, "B"]
  valid: Bool[Array, "B"]
  silhouette_iou: Float[Array, "B"]  # rendered against its own mask
  texture_distance: Float[Array, "B"]
  silhouette: Float[Array, "B H W"]  # rendered
  half_offsets: Float[Array, "B Vh 3"]
  uv_parts: Float[Array, "B Hu Wu P1"] | None  # part map pulled through the flow


# measure(params, batch_stats, template, batch)
Measure = Callable[..., Measurement]


def make_measure(
  infer: Infer,
  *,
  topology: Topology,
  settings: RenderConfig,
  image_size: int,
  distance: TextureDistance = texture_distance,
) -> Measure:
  """The measurement of a batch, as a pure function; no augmentation, no noise, one camera.

  Args:
    infer: `models.infer.make_infer`'s function; evaluation BatchNorm, z = mu, most probable camera.
    topology: the mesh.
    settings: of the rasterizer.
    image_size: pixels per side of the renders.
    distance: of a textured render from the image.

  Returns:
    `measure(params, batch_stats, template, batch) -> Measurement`.

  Source: Li et al. 2020, equation 1 (the pull-back of parts) and supplementary 2.1 (the scores).
  """

  def measure(params: Any, batch_stats: Any, template: Template, batch: Batch) -> Measurement:
    inferred = infer(params, batch_stats, template, batch.image)
    faces = camera.face_vertices(camera.project(inferred.vertices, inferred.camera), topology.faces)
    rgba = soft_rasterize(
      faces,
      sample_texels(batch.image, face_flow(inferred.flow_map, topology)),
      image_size=image_size,
      sigma=settings.sigma,
      gamma=settings.gamma,
      dist_eps=settings.dist_eps,
      antialias=settings.antialias,
    )
    alpha, mask = rgba[..., 3], average_pool(batch.mask, image_size)
    half = template.half_vertices.shape[0]
    return Measurement(
      index=batch.index,
      valid=batch.valid,
      silhouette_iou=soft_iou(alpha=alpha, mask=mask),
      texture_distance=distance(
        rendered=rgba[..., :3], alpha=alpha, image=average_pool(batch.image, image_size), mask=mask
      ),
      silhouette=alpha,
      half_offsets=inferred.vertices[:, :half] - template.half_vertices[None],
      uv_parts=None if batch.parts is None else uv_texture(batch.parts, inferred.flow_map),
    )

  return measure


def on_host(measurement: Measurement) -> Measurement:
  """The measurement as NumPy arrays, without the rows that padded the batch."""
  arrays = jax.device_get(measurement)
  return jax.tree.map(lambda rows: rows[arrays.valid], arrays)
