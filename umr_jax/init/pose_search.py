"""A camera for every training image, found by looking at shapes of the category from everywhere.

Gradient descent moves a camera hypothesis to the nearest view that explains an image a little
better, and from a wrong side that is rarely the right one. Which of a few dozen views shows the
parts where the image has them needs no gradient: views and images are laid into one frame by their
centres of mass and areas, and what they have in common is a matrix product. `camera_choice` decides
when all images have been compared with all views.

Source: Goel et al. 2020 (U-CMR) keep a set of cameras for every image. Departs: the paper's cameras
  are found by gradient descent alone.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Bool, Float, Int

from umr_jax.geometry import camera, quaternion
from umr_jax.geometry.sampling import bilinear_sample
from umr_jax.geometry.symmetry import symmetrize
from umr_jax.losses.drawing import choose_rows
from umr_jax.models.assemble import uv_parts_to_texels
from umr_jax.models.camera_heads import upright_rotation
from umr_jax.render import rasterize
from umr_jax.types import Array, Batch, EMState, Topology, checked

# Views: every 15 degrees around the object, from four heights, upright and leaning to both sides.
_AZIMUTHS, _ELEVATIONS, _ROLLS = 24, 4, (-0.4, 0.0, 0.4)
# Pixels per side of the crops that are searched, of the frame in which they meet the views, and of
# the drawings that views are measured on.
CROP_SIZE, FRAME, MEASURED = 48, 48, 24
# Half the frame's side, in square roots of the silhouette's area: what is up to 11 times as long as
# wide fits.
HALF_FRAME = 1.7
# What the silhouettes' IoU counts beside the parts', and what is added before a logarithm.
_SILHOUETTE, _FLOOR = 0.25, 0.05
# A part that covers less than this many pixels of the frame is not seen.
_LEAST = 1.0
# A view fits about this share of all images: what it reaches there is what it usually reaches.
_FITTING = 0.3
# The views within so many degrees of the best one share in the camera; who lies so much of a
# logarithm behind has a share smaller by e.
_NEIGHBORS, _SHARPNESS = 40.0, 0.05


@struct.dataclass
class Views:
  """What shapes look like from everywhere, in a frame around their centres of mass."""

  labels: Int[Array, "M K S S"]  # the part, from 1; 0: on the object, no part; -1: beside it
  centers: Float[Array, "M K 2"]  # of mass, as a camera of scale 1 in the middle sees them
  sides: Float[Array, "M K"]  # the square roots of the silhouettes' areas
  rotations: Float[Array, "K 4"]
  parted: bool = struct.field(pytree_node=False)  # whether anything is known of parts


@struct.dataclass
class ViewScores:
  """How well each view explains each image of a batch."""

  index: Int[Array, "B"]
  valid: Bool[Array, "B"]  # False for rows that only pad the batch
  values: Float[Array, "B K"]  # logarithms
  scale_shift: Float[Array, "B K 3"]  # the camera's scale and translation, if it were this view


def template_vertices(em_state: EMState, topology: Topology) -> Float[Array, "1 V 3"]:
  """The template as the only shape to look at."""
  half = jnp.asarray(em_state.template.half_vertices)
  return symmetrize(half, num_center=topology.num_center)[None]


def make_views(
  topology: Topology, *, elevation: tuple[float, ...], roll: float
) -> Callable[[Float[Array, "M V 3"], Float[Array, "Hu Wu P1"] | None], Views]:
  """The drawing of all views, as a pure function.

  Args:
    topology: the mesh.
    elevation: lowest and highest, in degrees; the outer views lie an eighth of the range inside.
    roll: the largest, in degrees.

  Returns:
    views(shapes, canonical_uv): of each shape its parts, or without a canonical map its silhouette,
    from all around.
  """
  rotations = view_rotations(elevation, roll)
  still = jnp.concatenate([jnp.ones((len(rotations), 1)), jnp.zeros((len(rotations), 2))], axis=-1)
  cameras = jnp.concatenate([still, rotations], axis=-1)

  def views(shapes: Float[Array, "M V 3"], canonical_uv: Float[Array, "Hu Wu P1"] | None) -> Views:
    part = jnp.zeros(len(topology.faces), jnp.int32)
    if canonical_uv is not None:
      texels = uv_parts_to_texels(jnp.asarray(canonical_uv), topology)
      part = jnp.argmax(jnp.mean(texels, axis=1), axis=-1).astype(jnp.int32)

    def draw(
      seen: Float[Array, "K V 3"], middle: Float[Array, "K 2"], half: Float[Array, "K"], size: int
    ) -> Int[Array, "K S S"]:
      """The nearest face at every pixel of a square, or -1."""
      flat = (seen[..., :2] - middle[:, None]) / half[:, None, None]
      faces = camera.face_vertices(jnp.concatenate([flat, seen[..., 2:]], axis=-1), topology.faces)
      nothing = jnp.zeros((*faces.shape[:2], 1, 1))
      return rasterize(faces, nothing, image_size=size, aggr_rgb="hard").face_ids

    def look(vertices: Float[Array, "V 3"]) -> tuple[Array, Array, Array]:
      spread = jnp.broadcast_to(vertices[None], (len(cameras), *vertices.shape))
      seen = camera.project(spread, cameras)
      low, high = jnp.min(seen[..., :2], axis=1), jnp.max(seen[..., :2], axis=1)
      middle, half = 0.5 * (low + high), 0.5 * jnp.max(high - low, axis=-1)
      inside = draw(seen, middle, half, MEASURED) >= 0
      center, side = center_and_side(inside.astype(jnp.float32))
      center, side = middle + half[:, None] * center, half * side
      ids = draw(seen, center, HALF_FRAME * side, FRAME)
      return jnp.where(ids >= 0, part[jnp.maximum(ids, 0)], -1).astype(jnp.int8), center, side

    labels, centers, sides = jax.lax.map(look, shapes)
    return Views(labels, centers, sides, rotations, parted=canonical_uv is not None)

  return views


def score_views(views: Views, batch: Batch) -> ViewScores:
  """How well each view explains each image, whichever of the shapes it shows.

  A view's score is the logarithm of the mean IoU over the parts that the image shows, and a little
  of the silhouettes' IoU; without parts, the latter alone. All shapes have the same say in which
  view it is, so that none that is bent to look right from a wrong side decides alone; the best of
  them in a view says how large and where.
  """
  center, side = center_and_side(batch.mask)
  mask = _framed(batch.mask[..., None], center, side)
  parts = None
  if batch.parts is not None and views.parted:
    parts = _framed(batch.parts[..., 1:] * batch.mask[..., None], center, side)

  def overlaps(labels: Int[Array, "K S S"]) -> tuple[Float[Array, "B K"], Float[Array, "B K"]]:
    whole = _overlap((labels >= 0).astype(labels.dtype), mask)
    if parts is None:
      return whole, whole
    known = jnp.any(parts > 0.0, axis=(1, 2, 3))[:, None]
    return jnp.where(known, _overlap(labels, parts), whole), whole

  shown, whole = jax.lax.map(overlaps, views.labels)  # [M, B, K] each
  values, outline = (jnp.log(jnp.mean(iou, axis=0) + _FLOOR) for iou in (shown, whole))
  values += _SILHOUETTE * outline
  best = jnp.argmax(shown, axis=0)
  scale = side[:, None] / jnp.take_along_axis(views.sides, best, axis=0)
  centers = jnp.take_along_axis(views.centers, best[..., None], axis=0)
  shift = center[:, None] - scale[..., None] * centers
  scale_shift = jnp.concatenate([scale[..., None], shift], axis=-1)
  return ViewScores(index=batch.index, valid=batch.valid, values=values, scale_shift=scale_shift)


@checked
def select_cameras(
  values: Float[Array, "N K"],
  scale_shift: Float[Array, "N K 3"],
  rotations: Float[Array, "K 4"],
  *,
  evenness: float,
) -> Float[Array, "N 7"]:
  """The camera of each image, once all images have been compared with all views.

  Some views suit every image a little, and draw what belongs to their neighbours; the shapes are
  then learned under them, which makes them suit even more. So a score counts by how much better it
  is than what the view usually reaches where it fits. Around the best view the rotation is the mean
  of the views, weighted by their scores: the grid is coarse.

  Args:
    values: logarithms of scores, of all images.
    scale_shift: scale and translation in each view.
    rotations: quaternions of the views.
    evenness: how much of what a view usually reaches is taken off. 0: nothing; 1: all of it, which
      suits photographs from all around alone: of photographs from one side (embedded birds) it
      turned many around.

  Returns:
    Cameras.
  """
  count = max(1, round(_FITTING * values.shape[0]))
  usual = jnp.mean(jax.lax.top_k(values.T, count)[0], axis=1)
  values = values - evenness * usual[None]
  view = jnp.argmax(values, axis=1)
  # q and -q are one rotation: all are turned to the best one's side.
  alike = rotations @ rotations.T
  around = 2.0 * jnp.arccos(jnp.clip(jnp.abs(alike), 0.0, 1.0)) < jnp.deg2rad(_NEIGHBORS)
  weights = jax.nn.softmax(jnp.where(around[view], values / _SHARPNESS, -jnp.inf), axis=1)
  mean = quaternion.normalize((weights * jnp.sign(alike)[view]) @ rotations)
  return jnp.concatenate([choose_rows(scale_shift, view), mean], axis=-1)


def view_rotations(elevation: tuple[float, ...], roll: float) -> Float[Array, "K 4"]:
  """Quaternions of views all around, from several heights and leaning within the bounds."""
  low, high = elevation
  heights = low + (high - low) * (np.arange(_ELEVATIONS) + 0.5) / _ELEVATIONS
  around = np.arange(_AZIMUTHS) * (360.0 / _AZIMUTHS)
  grid = np.meshgrid(around, heights, roll * np.array(_ROLLS))
  azimuth, height, lean = (jnp.asarray(g.ravel(), jnp.float32) for g in grid)
  return upright_rotation(azimuth, height, lean)


def center_and_side(
  masks: Float[Array, "N H W"],
) -> tuple[Float[Array, "N 2"], Float[Array, "N"]]:
  """The centre of mass of silhouettes, and the side of the square of their area, in image space."""
  height, width = masks.shape[1:]
  x = (2.0 * np.arange(width, dtype=np.float32) + 1.0) / width - 1.0
  y = (2.0 * np.arange(height, dtype=np.float32) + 1.0) / height - 1.0
  mass = jnp.maximum(jnp.sum(masks, axis=(1, 2)), 1.0)
  center = jnp.stack([jnp.sum(masks, axis=1) @ x, jnp.sum(masks, axis=2) @ y], axis=-1)
  return center / mass[:, None], jnp.sqrt(mass * (4.0 / (height * width)))


@checked
def _framed(
  maps: Float[Array, "B H W C"], center: Float[Array, "B 2"], side: Float[Array, "B"]
) -> Float[Array, "B S S C"]:
  """Maps in the frame around their centres of mass."""
  row, column = (np.mgrid[:FRAME, :FRAME].astype(np.float32) + 0.5) * (2.0 / FRAME) - 1.0
  place = jnp.asarray(np.stack([column.ravel(), row.ravel()], axis=-1))
  points = center[:, None] + HALF_FRAME * side[:, None, None] * place[None]
  return bilinear_sample(maps, points).reshape(len(maps), FRAME, FRAME, -1)


def _overlap(labels: Int[Array, "K S S"], maps: Float[Array, "B S S P"]) -> Float[Array, "B K"]:
  """Mean IoU over the parts that an image shows; label p stands for map p - 1."""
  own = jax.nn.one_hot(labels - 1, maps.shape[-1], dtype=maps.dtype)
  both = jnp.einsum("khwp,bhwp->bkp", own, maps)
  mass = jnp.sum(maps, axis=(1, 2))[:, None]
  union = jnp.sum(own, axis=(1, 2))[None] + mass - both
  shown = (mass > _LEAST).astype(maps.dtype)
  total = jnp.sum(shown * both / jnp.maximum(union, 1e-6), axis=-1)
  return total / jnp.maximum(jnp.sum(shown, axis=-1), 1.0)
