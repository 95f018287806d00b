"""What the M-step needs of each image: how well it is reconstructed, and its share of the means."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Bool, Float, Int

from umr_jax.config.settings import Config
from umr_jax.data.batching import evaluation_batches
from umr_jax.data.dataset import Split
from umr_jax.data.transforms import CropSpec
from umr_jax.geometry import camera
from umr_jax.geometry.sampling import average_pool, bilinear_sample
from umr_jax.geometry.uv import mirrored_columns, uv_corners
from umr_jax.losses.mask import soft_iou
from umr_jax.losses.spec import ObjectiveSpec
from umr_jax.models.assemble import face_flow, sample_texels, uv_texture
from umr_jax.models.infer import infer
from umr_jax.progress import tracked
from umr_jax.render.visibility import visible_vertices
from umr_jax.train import parallel
from umr_jax.types import Array, Batch, Model, Topology, Tree


@struct.dataclass
class ImageStatistics:
  """One row per image of a batch; rows that are not `valid` only pad it."""

  index: Int[Array, "B"]
  valid: Bool[Array, "B"]
  silhouette_iou: Float[Array, "B"]  # rendered against its own mask
  texture_distance: Float[Array, "B"]
  silhouette: Float[Array, "B H W"]  # rendered
  half_offsets: Float[Array, "B Vh 3"]
  uv_parts: Float[Array, "B Hu Wu P1"] | None  # part map projected to the UV map


ComputeStatistics = Callable[[Model, Batch], ImageStatistics]


def make_image_statistics(
  *,
  objective: ObjectiveSpec,
  uv_height: int,
  uv_projection: str = "flow",
) -> ComputeStatistics:
  """The statistics of a batch, as a pure function; no augmentation, no noise, one camera.

  Args:
    objective: the training's mesh, renders and distance of a textured render from the image.
    uv_height: rows of the UV maps of parts.
    uv_projection: how parts get from the image to the UV map: by the texture "flow", as in the
      paper, or by the "camera", for the points of the surface that are visible.

  Returns:
    `image_statistics(model, batch) -> ImageStatistics`, by `models.infer.infer`: evaluation
    BatchNorm, z = mu, most probable camera.

  Source: Li et al. 2020, equation 1 (parts projected to UV space by the flow), supplementary 2.1
    (the scores).
  """

  topology, render = objective.topology, objective.render

  def image_statistics(model: Model, batch: Batch) -> ImageStatistics:
    inferred = infer(model, batch.image)
    projected = camera.project(inferred.vertices, inferred.camera)
    faces = camera.face_vertices(projected, topology.faces)
    texels = sample_texels(batch.image, face_flow(inferred.flow_map, topology))
    parts = None
    if batch.parts is not None and uv_projection == "camera":
      fragments = render.rasterize(faces, texels)
      rgba = fragments.rgba
      parts = project_visible_parts(
        batch.parts, projected[..., :2], fragments.visible, topology, uv_height=uv_height
      )
    else:
      rgba = render.soft_rasterize(faces, texels)
      if batch.parts is not None:
        parts = uv_texture(batch.parts, inferred.flow_map)
    alpha = rgba[..., 3]
    image, mask = (average_pool(x, objective.image_size) for x in (batch.image, batch.mask))
    return ImageStatistics(
      index=batch.index,
      valid=batch.valid,
      silhouette_iou=soft_iou(alpha=alpha, mask=mask),
      texture_distance=objective.distance(
        rendered=rgba[..., :3], alpha=alpha, image=image, mask=mask
      ),
      silhouette=alpha,
      half_offsets=inferred.half_offsets,
      uv_parts=parts,
    )

  return image_statistics


def project_visible_parts(
  parts: Float[Array, "B H W P1"],
  projected: Float[Array, "B V 2"],
  visible: Bool[Array, "B F"],
  topology: Topology,
  *,
  uv_height: int,
) -> Float[Array, "B Hu Wu P1"]:
  """Part maps in UV space by the camera: each visible point takes the part at its projection.

  Args:
    parts: of the images.
    projected: vertices in image space.
    visible: the faces that are nearest at one pixel at least.
    topology: the mesh.
    uv_height: rows of the result.

  Returns:
    Probabilities of the parts, and none of the background; zeros where the surface is hidden. Every
    point has the sum of its own and its mirror image's, 2 at most.
  """
  batch, vertices = projected.shape[:2]
  visible = visible_vertices(visible, topology.faces, num_vertices=vertices)
  corners, weights = uv_corners(topology, uv_height)
  places = jnp.einsum("hwk,bhwkc->bhwc", weights, projected[:, corners])
  shown = jnp.all(visible[:, corners], axis=-1)
  found = bilinear_sample(parts, places.reshape(batch, -1, 2)).reshape(*shown.shape, -1)
  # A point of the surface is never background: beyond the object's mask nothing is known of it.
  found = jnp.where(shown[..., None], found, 0.0).at[..., 0].set(0.0)
  return found + found[:, :, mirrored_columns(uv_height)]


def rows_of(
  compute: Callable[[Model, Batch], Tree],
  model: Model,
  split: Split,
  config: Config,
  *,
  name: str,
  parts: bool,
) -> Iterator[Tree]:
  """One pass over a split, in order; hosts compute shares and receive all of them.

  Args:
    compute: from a replicated model and a sharded batch to rows that say which are `valid`.
    model: unreplicated.
    split: of training images.
    config: of their crops, and of how many are computed at a time.
    name: of the pass, for its progress.
    parts: whether part maps are wanted.

  Yields:
    Each batch's rows as NumPy arrays, without those that padded it.
  """
  replicated, size = parallel.replicate(model), config.train.batch_size
  batches = evaluation_batches(
    split,
    CropSpec.from_config(config.data),
    batch_size=size,
    parts=parts,
    shard=(jax.process_index(), jax.process_count()),
  )
  for batch, _ in tracked(batches, f"{name}, images", total=len(split), step=size):
    own = compute(replicated, parallel.shard_batch(batch))
    arrays = jax.device_get(parallel.gather_rows(parallel.unshard(own)))
    yield jax.tree.map(lambda rows, valid=arrays.valid: rows[valid], arrays)
