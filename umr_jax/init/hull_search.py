"""Cameras and an initial template before any network: pose search and visual hull in alternation.

The cameras that pose search finds with a crude template are good enough for a visual hull that is
better than the template, which finds better cameras. Cameras are found by comparison with a grid of
views and refined by gradient descent; one voxel grid represents the whole category.
"""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float, PRNGKeyArray
from scipy import ndimage

from umr_jax.geometry.voxels import Mesh, occupancy
from umr_jax.init.pose_search import (
  PoseSearch,
  Views,
  ViewScores,
  find_cameras,
  make_views,
  score_views,
  template_vertices,
  view_rotations,
)
from umr_jax.init.shrink_wrap import hull_canonical_uv, shrink_wrap, surface_points
from umr_jax.init.visual_hull import (
  FIT_BATCH,
  FIT_PIECE,
  HALF,
  RESOLUTION,
  Volume,
  empty_logits,
  filled,
  fit_volume,
  surface_level,
  volume_from_logits,
  volume_views,
)
from umr_jax.models.assemble import with_canonical_uv
from umr_jax.types import Batch, EMState, Template, Topology

# Pixels per side of the maps that the visual hull is fitted to.
_SIZE = 32
# Steps of each turn. The last one, after which cameras are not searched again, runs to convergence:
# at least _LAST_STEPS steps, and enough that each image is in _VISITS batches.
_STEPS, _LAST_STEPS, _VISITS = 60, 120, 16
# How many images are compared with the views at a time.
_BATCH = 50
# How many images determine the opacity of the surface.
_LEVEL_IMAGES = 100


def fit_hull_and_cameras(
  maps: Float[np.ndarray, "N S S C"],
  start: EMState,
  topology: Topology,
  *,
  search: PoseSearch,
  turns: int,
  cost: float,
  key: PRNGKeyArray,
) -> tuple[Volume, np.ndarray]:
  """Fits a visual hull of the category and finds a camera for each image.

  Args:
    maps: of crops around the object: silhouettes, and after them the part maps, background first,
      where there are any.
    start: an initial template, with a canonical map where there are part maps.
    topology: of its mesh.
    search: the grid of views.
    turns: how often cameras are searched, and the hull fitted to them; at least one.
    cost: of opaque voxels outside the initial template, by their distance from it: what no image
      constrains (the width of an object seen from the side alone) stays as it is there.
    key: of the order of batches.

  Returns:
    The visual hull, and cameras [N, 7].
  """
  masks, parts = maps[..., 0], maps[..., 1:]
  silhouettes, inner = _targets(maps)
  render_views = jax.jit(make_views(topology, elevation=search.elevation, roll=search.roll))
  rotations = view_rotations(search.elevation, search.roll)
  logits = empty_logits(inner.shape[-1])
  costs = _costs(cost, start, topology)
  for turn in range(turns):
    views = (
      volume_views(volume_from_logits(logits), rotations)
      if turn
      else render_views(template_vertices(start, topology), start.canonical_uv)
    )
    cameras = find_cameras(
      _scores(views, masks, parts), rotations, count=len(maps), evenness=search.evenness
    )
    logits, cameras, overlaps = fit_volume(
      logits,
      cameras,
      silhouettes,
      inner,
      cost=costs,
      key=jax.random.fold_in(key, turn),
      steps=_STEPS if turn + 1 < turns else _last_steps(len(maps)),
    )
    logging.info(
      "Visual hull, turn %d of %d: mask IoU %.3f, part IoU %.3f.",
      turn + 1,
      turns,
      *overlaps.tolist(),
    )
  return volume_from_logits(logits), np.asarray(cameras)


def fit_hull(
  maps: Float[np.ndarray, "N S S C"],
  cameras: Float[np.ndarray, "N 7"],
  start: EMState,
  topology: Topology,
  *,
  cost: float,
  key: PRNGKeyArray,
) -> tuple[Volume, np.ndarray]:
  """Fits a visual hull of the category to known cameras, which move by gradients alone.

  Args:
    maps: see `fit_hull_and_cameras`.
    cameras: of the images.
    start: an initial template, outside of which voxels cost.
    topology: of its mesh.
    cost: likewise.
    key: of the order of batches.

  Returns:
    The visual hull, and cameras [N, 7].
  """
  silhouettes, inner = _targets(maps)
  logits, fitted, overlaps = fit_volume(
    empty_logits(inner.shape[-1]),
    jnp.asarray(cameras),
    silhouettes,
    inner,
    cost=_costs(cost, start, topology),
    key=key,
    steps=_last_steps(len(maps)),
  )
  logging.info("Visual hull: mask IoU %.3f, part IoU %.3f.", *overlaps.tolist())
  return volume_from_logits(logits), np.asarray(fitted)


def _last_steps(images: int) -> int:
  # Whole pieces: one of another length would be compiled for itself.
  return -(-max(_LAST_STEPS, _VISITS * images // FIT_BATCH) // FIT_PIECE) * FIT_PIECE


def with_hull_template(
  start: EMState,
  volume: Volume,
  cameras: Float[np.ndarray, "N 7"],
  masks: Float[np.ndarray, "N S S"],
  topology: Topology,
  *,
  uv_height: int,
  solid: bool = False,
) -> EMState:
  """The state whose template is the hull's surface, with the hull's parts as canonical map.

  Args:
    start: the state that the fit started from.
    volume: the visual hull.
    cameras: of the images.
    masks: of the images; they determine which voxels belong to the object.
    topology: of the template.
    uv_height: rows of the canonical map.
    solid: whether what no silhouette shows to be empty is full: see `visual_hull.filled`.

  Raises:
    ValueError: if the hull is empty.
  """
  some = np.linspace(0, len(masks) - 1, min(len(masks), _LEVEL_IMAGES)).astype(int)
  level = surface_level(volume, cameras[some], _resized(masks[some, ..., None])[..., 0])
  opacity = filled(volume.opacity, level=jnp.float32(level)) if solid else volume.opacity
  half = shrink_wrap(*surface_points(np.asarray(opacity), level=level), topology)
  logging.info("The template is the surface of the visual hull at an opacity of %.1f.", level)
  state = dataclasses.replace(start, template=Template(half_vertices=half))
  if not volume.parts.shape[-1]:
    return state
  canonical_uv = hull_canonical_uv(volume, half, topology, uv_height=uv_height)
  return with_canonical_uv(state, canonical_uv, topology=topology)


def _targets(maps: np.ndarray) -> tuple[jax.Array, jax.Array]:
  """Silhouettes [N, S, S], and [N, S, S, P] the parts inside them without the background."""
  small = _resized(np.concatenate([maps[..., :1], maps[..., 2:] * maps[..., :1]], axis=-1))
  return small[..., 0], small[..., 1:]


def _costs(cost: float, start: EMState, topology: Topology) -> jax.Array:
  """[R, R, R]: the cost of each voxel, by its distance from the initial template's inside."""
  mesh = Mesh(np.asarray(template_vertices(start, topology)), np.asarray(topology.faces))
  voxel = 2.0 * HALF / RESOLUTION
  solid = occupancy(mesh, origin=np.full(3, -HALF), voxel=voxel, resolution=RESOLUTION)
  distance = (voxel * ndimage.distance_transform_edt(~solid)).astype(np.float32)
  return jnp.asarray(cost / RESOLUTION**2 * distance)


def _resized(maps: np.ndarray) -> jax.Array:
  return jax.image.resize(maps, (len(maps), _SIZE, _SIZE, maps.shape[-1]), "linear")


def _scores(views: Views, masks: np.ndarray, parts: np.ndarray) -> Iterator[ViewScores]:
  """The scores of all images, a batch at a time."""
  for start in range(0, len(masks), _BATCH):
    index = np.arange(len(masks), dtype=np.int32)[start : start + _BATCH]
    yield _scored(views, index, masks[index], parts[index] if parts.shape[-1] else None)


@jax.jit
def _scored(
  views: Views, index: jax.Array, masks: jax.Array, parts: jax.Array | None
) -> ViewScores:
  batch = Batch(
    image=jnp.zeros((*masks.shape, 3)),
    mask=masks,
    barrier=jnp.zeros(masks.shape),
    index=index,
    valid=jnp.ones(index.shape, bool),
    parts=parts,
  )
  return score_views(views, batch)
