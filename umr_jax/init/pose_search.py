"""Pose search: a camera for every training image by comparing it with renders from a grid of views.

Gradient descent moves a camera hypothesis to the nearest local optimum, which from a wrong side is
rarely the right view. Comparing the parts of an image with those of a few hundred rendered views
needs no gradient: views and images are normalized by their centres of mass and areas, and their
overlap is a matrix product. `select_cameras` decides once all images have been compared.

Source: Goel et al. 2020 (U-CMR) keep a set of cameras for every image. Departs: the paper's cameras
  are found by gradient descent alone.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Bool, Float, Int

from umr_jax.config.settings import Config
from umr_jax.geometry import camera
from umr_jax.geometry.sampling import bilinear_sample, choose_rows, pixel_centers
from umr_jax.geometry.symmetry import symmetrize
from umr_jax.init.view_grid import mean_rotations
from umr_jax.models.assemble import uv_parts_to_texels
from umr_jax.models.camera_heads import upright_rotation
from umr_jax.models.framed_images import HALF_FRAME, center_and_side
from umr_jax.render import rasterize
from umr_jax.types import Array, Batch, EMState, Topology, checked

# Views: every 15 degrees around the object, from four heights, upright and leaning to both sides.
_AZIMUTHS, _ELEVATIONS, _ROLLS = 24, 4, (-0.4, 0.0, 0.4)
# Pixels per side of the crops that are searched, of the normalized frame in which they are compared
# with the views, and of the renders from which the views' centres and areas are computed.
CROP_SIZE, FRAME, MEASURED = 48, 48, 24
# Weight of the silhouettes' IoU beside the parts', and what is added before a logarithm.
_SILHOUETTE, _FLOOR = 0.25, 0.05
# A part that covers less than this many pixels of the frame counts as not visible.
_LEAST = 1.0
# A view is the right one for about this share of all images at most: its mean score over the best
# such share is its usual score.
_FITTING = 0.3
# The camera is the mean of the views around the best one, with softmax weights of their scores at
# this temperature.
_TEMPERATURE = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoseSearch:
  """The grid of views and how they are weighted."""

  elevation: tuple[float, ...]  # lowest and highest, in degrees
  roll: float  # the largest, in degrees
  evenness: float  # see `select_cameras`

  @classmethod
  def from_config(cls, config: Config) -> "PoseSearch":
    """The search that a run's configuration asks for."""
    return cls(
      elevation=config.model.camera_elevation,
      roll=config.model.camera_roll,
      evenness=config.em.view_evenness,
    )


@struct.dataclass
class Views:
  """Renders of a shape from every view, in a frame around its centre of mass."""

  labels: Int[Array, "K S S"]  # the part, from 1; 0: on the object, no part; -1: background
  centers: Float[Array, "K 2"]  # of mass, under a camera of scale 1 at the centre
  sides: Float[Array, "K"]  # the square roots of the silhouettes' areas
  rotations: Float[Array, "K 4"]
  parted: bool = struct.field(pytree_node=False)  # whether labels distinguish parts


@struct.dataclass
class ViewScores:
  """How well each view explains each image of a batch."""

  index: Int[Array, "B"]
  valid: Bool[Array, "B"]  # False for rows that only pad the batch
  values: Float[Array, "B K"]  # logarithms
  scale_shift: Float[Array, "B K 3"]  # the camera's scale and translation, if it were this view


def template_vertices(em_state: EMState, topology: Topology) -> Float[Array, "V 3"]:
  """The vertices of the whole template.

  Args:
    em_state: holds the template.
    topology: the mesh.
  """
  half = jnp.asarray(em_state.template.half_vertices)
  return symmetrize(half, num_center=topology.num_center)


def make_views(
  topology: Topology, *, elevation: tuple[float, ...], roll: float
) -> Callable[[Float[Array, "V 3"], Float[Array, "Hu Wu P1"] | None], Views]:
  """Builds the function that renders all views.

  Args:
    topology: the mesh.
    elevation: lowest and highest, in degrees; the outer views lie an eighth of the range inside.
    roll: the largest, in degrees.

  Returns:
    views(vertices, canonical_uv): the part labels of a shape, or without a canonical map its
    silhouette, in every view.
  """
  rotations = view_rotations(elevation, roll)
  count = len(rotations)
  cameras = camera.Camera(jnp.ones(count), jnp.zeros((count, 2)), rotations).pack()

  def views(vertices: Float[Array, "V 3"], canonical_uv: Float[Array, "Hu Wu P1"] | None) -> Views:
    part = jnp.zeros(len(topology.faces), jnp.int32)
    if canonical_uv is not None:
      texels = uv_parts_to_texels(jnp.asarray(canonical_uv), topology)
      part = jnp.argmax(jnp.mean(texels, axis=1), axis=-1).astype(jnp.int32)

    def face_ids(
      projected: Float[Array, "K V 3"],
      middle: Float[Array, "K 2"],
      half: Float[Array, "K"],
      size: int,
    ) -> Int[Array, "K S S"]:
      """The nearest face at every pixel of a square, or -1."""
      flat = (projected[..., :2] - middle[:, None]) / half[:, None, None]
      faces = camera.face_vertices(
        jnp.concatenate([flat, projected[..., 2:]], axis=-1), topology.faces
      )
      nothing = jnp.zeros((*faces.shape[:2], 1, 1))
      return rasterize(faces, nothing, image_size=size, aggr_rgb="hard").face_ids

    spread = jnp.broadcast_to(vertices[None], (count, *vertices.shape))
    projected = camera.project(spread, cameras)
    low, high = jnp.min(projected[..., :2], axis=1), jnp.max(projected[..., :2], axis=1)
    middle, half = 0.5 * (low + high), 0.5 * jnp.max(high - low, axis=-1)
    inside = face_ids(projected, middle, half, MEASURED) >= 0
    center, side = center_and_side(inside.astype(jnp.float32))
    center, side = middle + half[:, None] * center, half * side
    ids = face_ids(projected, center, HALF_FRAME * side, FRAME)
    labels = jnp.where(ids >= 0, part[jnp.maximum(ids, 0)], -1).astype(jnp.int8)
    return Views(labels, center, side, rotations, parted=canonical_uv is not None)

  return views


def score_views(views: Views, batch: Batch) -> ViewScores:
  """Scores every view against every image of a batch.

  A view's score is the logarithm of the mean IoU over the parts visible in the image, plus a
  fraction of that of the silhouettes' IoU; without parts, the latter alone.

  Args:
    views: renders of the category's shape.
    batch: images with masks and, where known, part maps.
  """
  center, side = center_and_side(batch.mask)
  mask = _normalized(batch.mask[..., None], center, side)
  parts = None
  if batch.parts is not None and views.parted:
    parts = _normalized(batch.parts[..., 1:] * batch.mask[..., None], center, side)

  whole = _overlap((views.labels >= 0).astype(views.labels.dtype), mask)
  shown = whole
  if parts is not None:
    known = jnp.any(parts > 0.0, axis=(1, 2, 3))[:, None]
    shown = jnp.where(known, _overlap(views.labels, parts), whole)
  values = jnp.log(shown + _FLOOR) + _SILHOUETTE * jnp.log(whole + _FLOOR)
  scale = side[:, None] / views.sides[None]
  shift = center[:, None] - scale[..., None] * views.centers[None]
  scale_shift = jnp.concatenate([scale[..., None], shift], axis=-1)
  return ViewScores(index=batch.index, valid=batch.valid, values=values, scale_shift=scale_shift)


def find_cameras(
  scores: Iterable[ViewScores], rotations: Float[Array, "K 4"], *, count: int, evenness: float
) -> Float[Array, "N 7"]:
  """The camera of each image, from the scores of all batches.

  Args:
    scores: of batches of images that together hold every index from 0 to `count` - 1.
    rotations: quaternions of the views.
    count: the number of images.
    evenness: see `select_cameras`.
  """
  size = (count, len(rotations))
  values, scale_shift = np.zeros(size, np.float32), np.zeros((*size, 3), np.float32)
  for batch in scores:
    found = jax.device_get(batch)
    rows = found.index[found.valid]
    values[rows] = found.values[found.valid]
    scale_shift[rows] = found.scale_shift[found.valid]
  return select_cameras(values, scale_shift, rotations, evenness=evenness)


@functools.partial(jax.jit, static_argnames="evenness")
@checked
def select_cameras(
  values: Float[Array, "N K"],
  scale_shift: Float[Array, "N K 3"],
  rotations: Float[Array, "K 4"],
  *,
  evenness: float,
) -> Float[Array, "N 7"]:
  """The camera of each image, once all images have been compared with all views.

  Some views overlap with every image a little and attract images of neighbouring views; shapes are
  then learned under them, which reinforces them. So each view's usual score is subtracted. The
  grid is coarse: the rotation is the score-weighted mean of the views around the best one.

  Args:
    values: logarithms of scores, of all images.
    scale_shift: scale and translation in each view.
    rotations: quaternions of the views.
    evenness: the share of a view's usual score that is subtracted. 0: nothing; 1: all of it, which
      is right for images from all around alone: of images from one side (embedded birds) it
      reversed many.

  Returns:
    Cameras.
  """
  count = max(1, round(_FITTING * values.shape[0]))
  usual_score = jnp.mean(jax.lax.top_k(values.T, count)[0], axis=1)
  values = values - evenness * usual_score[None]
  view = jnp.argmax(values, axis=1)
  mean = mean_rotations(values, view, rotations, temperature=_TEMPERATURE)
  return jnp.concatenate([choose_rows(scale_shift, view), mean], axis=-1)


def view_rotations(elevation: tuple[float, ...], roll: float) -> Float[Array, "K 4"]:
  """Quaternions of the grid of views.

  Args:
    elevation: lowest and highest, in degrees.
    roll: the largest, in degrees.
  """
  low, high = elevation
  heights = low + (high - low) * (np.arange(_ELEVATIONS) + 0.5) / _ELEVATIONS
  around = np.arange(_AZIMUTHS) * (360.0 / _AZIMUTHS)
  grid = np.meshgrid(around, heights, roll * np.array(_ROLLS))
  azimuth, height, lean = (jnp.asarray(g.ravel(), jnp.float32) for g in grid)
  return upright_rotation(azimuth, height, lean)


@checked
def _normalized(
  maps: Float[Array, "B H W C"], center: Float[Array, "B 2"], side: Float[Array, "B"]
) -> Float[Array, "B S S C"]:
  """Maps resampled in the frame around their silhouettes' centres of mass."""
  place = pixel_centers(FRAME, FRAME).reshape(-1, 2)
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
