"""A camera for every training image, found by looking at the template from everywhere.

Gradient descent moves a camera hypothesis to the nearest view that explains an image a little
better, and from a wrong side that is rarely the right one. A few dozen views of the template are
drawn quickly, and which of them shows the image's parts where the image has them needs no gradient.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Bool, Float, Int

from umr_jax.geometry import camera
from umr_jax.geometry.symmetry import symmetrize
from umr_jax.losses.drawing import average_pool, choose_rows, project_faces
from umr_jax.models.assemble import uv_parts_to_texels
from umr_jax.models.camera_heads import upright_rotation
from umr_jax.render import rasterize
from umr_jax.types import Array, Batch, EMState, Topology, checked

# Views: every 15 degrees around the object, from three heights.
_AZIMUTHS, _ELEVATIONS = 24, 3
# Pixels per side of the crops that are searched, and of the views that are drawn.
CROP_SIZE, _VIEW_SIZE = 48, 24


@struct.dataclass
class Found:
  """The best view of each image of a batch."""

  index: Int[Array, "B"]
  valid: Bool[Array, "B"]  # False for rows that only pad the batch
  cameras: Float[Array, "B 7"]


Search = Callable[[EMState, Batch], Found]


def make_search(topology: Topology, *, elevation: tuple[float, ...]) -> Search:
  """The search over views, as a pure function.

  Args:
    topology: the mesh.
    elevation: lowest and highest, in degrees; the outer views lie a sixth of the range inside.

  Returns:
    search(em_state, batch): the view whose visible parts meet the image's best, by the mean IoU
    over the parts that the image shows; without parts, by the IoU of silhouettes. Its scale and
    translation lay the box of the template onto the box of the mask.

  Source: Goel et al. 2020 (U-CMR) keep a set of cameras for every image. Departs: the paper's
    cameras are found by gradient descent alone.
  """
  rotations = view_rotations(elevation)

  def search(em_state: EMState, batch: Batch) -> Found:
    half = jnp.asarray(em_state.template.half_vertices)
    template = symmetrize(half, num_center=topology.num_center)
    cameras = fit_cameras(template, rotations, batch.mask)
    spread = jnp.broadcast_to(template[None], (len(batch.mask), *template.shape))
    faces = project_faces(spread, cameras, topology)
    nothing = jnp.zeros((*faces.shape[:3], 1, 1))
    ids = rasterize(faces, nothing, image_size=_VIEW_SIZE, aggr_rgb="hard").face_ids
    mask = average_pool(batch.mask, _VIEW_SIZE)
    score = _overlap((ids >= 0).astype(jnp.int32), mask[..., None])
    if batch.parts is not None and em_state.canonical_uv is not None:
      texels = uv_parts_to_texels(jnp.asarray(em_state.canonical_uv), topology)
      labels = jnp.argmax(jnp.mean(texels, axis=1), axis=-1).astype(jnp.int32)
      shown = jnp.where(ids >= 0, labels[jnp.maximum(ids, 0)], 0)
      parts = average_pool(batch.parts, _VIEW_SIZE)[..., 1:] * mask[..., None]
      known = jnp.any(parts > 0.0, axis=(1, 2, 3))[:, None]
      score = jnp.where(known, _overlap(shown, parts), score)
    best = jnp.argmax(score, axis=1)
    return Found(index=batch.index, valid=batch.valid, cameras=choose_rows(cameras, best))

  return search


def view_rotations(elevation: tuple[float, ...]) -> Float[Array, "K 4"]:
  """Quaternions of upright views, all around and from three heights within the bounds."""
  low, high = elevation
  heights = low + (high - low) * (np.arange(_ELEVATIONS) + 0.5) / _ELEVATIONS
  around = np.arange(_AZIMUTHS) * (360.0 / _AZIMUTHS)
  azimuth, height = (jnp.asarray(g.ravel(), jnp.float32) for g in np.meshgrid(around, heights))
  return upright_rotation(azimuth, height, jnp.zeros_like(azimuth))


@checked
def fit_cameras(
  vertices: Float[Array, "V 3"], rotations: Float[Array, "K 4"], mask: Float[Array, "B H W"]
) -> Float[Array, "B K 7"]:
  """Cameras of given rotations that lay the box of a mesh onto the boxes of silhouettes.

  Boxes meet in their centres and in their areas: their sides' ratios differ.
  """
  count = len(rotations)
  still = jnp.concatenate([jnp.ones((count, 1)), jnp.zeros((count, 2)), rotations], axis=-1)
  spread = jnp.broadcast_to(vertices[None], (count, *vertices.shape))
  projected = camera.project(spread, still)[..., :2]
  low, high = jnp.min(projected, axis=1), jnp.max(projected, axis=1)
  start, stop = _mask_box(mask)
  area = jnp.prod(stop - start, axis=-1)[:, None] / jnp.prod(high - low, axis=-1)[None]
  scale = jnp.sqrt(jnp.maximum(area, 1e-6))
  middle = 0.5 * (start + stop)[:, None] - scale[..., None] * 0.5 * (low + high)[None]
  turned = jnp.broadcast_to(rotations[None], (len(mask), *rotations.shape))
  return jnp.concatenate([scale[..., None], middle, turned], axis=-1)


def _mask_box(mask: Float[Array, "B H W"]) -> tuple[Float[Array, "B 2"], Float[Array, "B 2"]]:
  """The corners of the boxes around what is at least half covered, in image space."""
  inside = mask >= 0.5
  sides = []
  for axis, size in ((1, mask.shape[2]), (2, mask.shape[1])):
    filled = jnp.any(inside, axis=axis)
    first = jnp.argmax(filled, axis=-1)
    last = size - jnp.argmax(filled[:, ::-1], axis=-1)
    sides.append([2.0 * edge.astype(mask.dtype) / size - 1.0 for edge in (first, last)])
  (left, right), (top, bottom) = sides
  return jnp.stack([left, top], axis=-1), jnp.stack([right, bottom], axis=-1)


def _overlap(labels: Int[Array, "B K H W"], maps: Float[Array, "B H W P"]) -> Float[Array, "B K"]:
  """Mean IoU over the parts that an image shows; label p stands for map p - 1."""
  own = jax.nn.one_hot(labels - 1, maps.shape[-1], dtype=maps.dtype)
  both = jnp.einsum("bkhwp,bhwp->bkp", own, maps)
  mass = jnp.sum(maps, axis=(1, 2))[:, None]
  union = jnp.sum(own, axis=(2, 3)) + mass - both
  shown = (mass > 0.5).astype(maps.dtype)
  total = jnp.sum(shown * both / jnp.maximum(union, 1e-6), axis=-1)
  return total / jnp.maximum(jnp.sum(shown, axis=-1), 1.0)
