"""Pseudo labels: the canonical part map, rendered on each image's reconstruction."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Float
from scipy import ndimage

from umr_jax.geometry import camera
from umr_jax.geometry.symmetry import symmetrize
from umr_jax.losses.semantic import part_probability_loss, part_targets, part_vertices_loss
from umr_jax.models.assemble import part_texels
from umr_jax.models.infer import Infer
from umr_jax.render import rasterize
from umr_jax.types import Array, Batch, Model, checked


@struct.dataclass
class BatchPseudoLabels:
  """One row per image of a batch."""

  maps: Float[Array, "B S S P"]  # the canonical parts, where the mesh covers the crop
  probability: Float[Array, "B"]  # the probability-based loss against the image's own parts
  vertices: Float[Array, "B"]  # the vertex-based one


RenderPseudoLabels = Callable[[Model, Batch, Array], BatchPseudoLabels]


def make_pseudo_labels(infer: Infer, *, image_size: int) -> RenderPseudoLabels:
  """Renders canonical parts on reconstructions, and measures how well both fit the images' parts.

  Args:
    infer: reconstructs images.
    image_size: of the crops and of the renders.

  Returns:
    `render(model, batch, key)`; the model has a canonical map, and the batch has part maps.

  Source: Li et al. 2020, supplementary 1.
  """

  def render(model: Model, batch: Batch, key: Array) -> BatchPseudoLabels:
    if model.canonical_uv is None or model.part_vertices is None or batch.parts is None:
      raise ValueError("found no canonical part map, or no part maps to compare it with")
    topology, found = model.topology, infer(model, batch.image)
    faces = camera.project_faces(found.vertices, found.camera, topology.faces)
    texels = part_texels(jnp.asarray(model.canonical_uv), topology)
    textures = jnp.broadcast_to(texels[None], (len(batch.image), *texels.shape))
    maps = rasterize(faces, textures, image_size=image_size, aggr_rgb="hard").rgba[..., :-1]
    targets = part_targets(batch.parts, batch.mask, batch.index, key)
    half = jnp.asarray(model.template.half_vertices)
    template = symmetrize(half, num_center=topology.num_center)
    spread = jnp.broadcast_to(template[None], (len(batch.image), *template.shape))
    projected = camera.project(spread, found.camera)
    return BatchPseudoLabels(
      maps=maps,
      probability=part_probability_loss(
        rendered=maps, target=targets.probs, present=targets.present
      ),
      vertices=part_vertices_loss(
        projected=projected[:, None, :, :2],
        labels=jnp.asarray(model.part_vertices),
        points=targets.points,
        present=targets.present,
      )[:, 0],
    )

  return render


@checked
def inside_mask(
  maps: Float[np.ndarray, "S S P"], mask: Float[np.ndarray, "S S"]
) -> Float[np.ndarray, "S S P1"]:
  """Rendered parts, extended to all of the silhouette and nowhere else; background first.

  Args:
    maps: rendered parts, without background.
    mask: the silhouette.

  Where the mesh does not reach, the object continues the nearest part. Nothing, not even
  background, where the mesh has no part at all.
  """
  covered = maps.sum(axis=-1) > 0.0
  if not covered.any():
    return np.zeros((*mask.shape, maps.shape[-1] + 1), np.float32)
  _, (rows, columns) = ndimage.distance_transform_edt(~covered, return_indices=True)
  labels = np.argmax(maps, axis=-1)[rows, columns]
  parts = np.eye(maps.shape[-1], dtype=np.float32)[labels] * mask[..., None]
  return np.concatenate([1.0 - mask[..., None], parts], axis=-1).astype(np.float32)


@checked
def confident(
  probability: Float[np.ndarray, "N"], vertices: Float[np.ndarray, "N"], *, share: float
) -> np.ndarray:
  """The images whose reconstruction agrees best with their parts, by both losses' ranks together.

  Args:
    probability: the probability-based loss of each image.
    vertices: the vertex-based one.
    share: of the images that are taken; at least one is.

  Returns:
    [N] bool.

  Source: Li et al. 2020, supplementary 1 (low L_sp and L_sv). Departs: their thresholds are not
    given; ranks need no units.
  """
  ranks = sum(np.argsort(np.argsort(loss, kind="stable")) for loss in (probability, vertices))
  chosen = np.zeros(len(probability), bool)
  chosen[np.argsort(ranks, kind="stable")[: max(1, round(share * len(probability)))]] = True
  return chosen
