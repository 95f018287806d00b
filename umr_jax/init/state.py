"""The EM state of round 0: the initial template and, where parts need one, a canonical map."""

import dataclasses

import numpy as np
from jaxtyping import Float

from umr_jax.config.settings import Config
from umr_jax.data.batching import evaluation_batches
from umr_jax.data.dataset import Split, every_nth
from umr_jax.data.transforms import CropSpec
from umr_jax.init.dense_features import dense_features, encoder_maps
from umr_jax.init.hull_search import fit_hull, fit_hull_and_cameras, with_hull_template
from umr_jax.init.pose_search import PoseSearch
from umr_jax.init.silhouettes import inflate, init_canonical_uv, mean_profile, unit_sphere
from umr_jax.init.view_calibration import fit_view_template
from umr_jax.init.view_search import coarse_grid, find_views
from umr_jax.models.assemble import with_canonical_uv
from umr_jax.models.initialize import encoder_file
from umr_jax.random import Purpose, run_key
from umr_jax.train import parallel
from umr_jax.types import Batch, EMState, Template, Topology, ViewTemplate

# At most this many images make the mean silhouette and the visual hull; their pixels per side.
_PROFILE_IMAGES, _HULL_IMAGES, _SIZE = 1000, 4000, 64
# At most this many images make the template that views are compared with.
_VIEW_IMAGES = 1000
# Of fewer images halves agree on nothing.
_FEW = 10


def init_em_state(config: Config, topology: Topology, split: Split) -> EMState:
  """The initial state: the sphere, or what the training set's silhouettes and parts give.

  Args:
    config: `geometry.init` names how.
    topology: of the template.
    split: the training images.

  Returns:
    The state of round 0, the same on every host. With a visual hull and `loss.target_camera`, the
    target cameras are the hull's, if it was fitted to every image.

  Raises:
    ValueError: if the silhouettes do not allow it.
  """
  geometry = config.geometry
  if geometry.init == "sphere":
    return bare_em_state(unit_sphere(topology))
  is_hull = geometry.init in ("visual_hull", "view_search")
  maps = _maps(config, split, limit=_HULL_IMAGES if is_hull else _PROFILE_IMAGES)
  profile = mean_profile(maps[:: 1 + (len(maps) - 1) // _PROFILE_IMAGES])
  half = inflate(profile[..., 0], topology, width=geometry.init_width)
  em_state = bare_em_state(half)
  if config.init_parts:
    canonical_uv = init_canonical_uv(profile[..., 1:], half, topology, uv_height=geometry.uv_height)
    em_state = with_canonical_uv(em_state, canonical_uv, topology=topology)
  if is_hull:
    em_state = _with_hull(em_state, config, topology, split, maps)
  # What is found by gradients need not be the same to the last bit on every host.
  return parallel.broadcast_from_host0(em_state)


def _with_hull(
  em_state: EMState, config: Config, topology: Topology, split: Split, maps: np.ndarray
) -> EMState:
  """The state with a visual hull's surface as template, and its cameras as target cameras."""
  geometry, search = config.geometry, PoseSearch.from_config(config)
  key, cost = run_key(config.train.seed, Purpose.VISUAL_HULL), geometry.hull_cost
  searched = geometry.init == "view_search"
  if searched:
    features = dense_features(
      split.subsample(_HULL_IMAGES), config.parts, padding=config.data.padding
    )
    found = find_views(features, search=search, key=run_key(config.train.seed, Purpose.VIEW_SEARCH))
    volume, cameras = fit_hull(maps, found, em_state, topology, cost=cost, key=key)
  else:
    volume, cameras = fit_hull_and_cameras(
      maps, em_state, topology, search=search, turns=geometry.hull_turns, cost=cost, key=key
    )
  em_state = with_hull_template(
    em_state,
    volume,
    cameras,
    maps[..., 0],
    topology,
    uv_height=geometry.uv_height,
    solid=searched,
  )
  if config.loss.target_camera and len(cameras) == len(split):
    em_state = dataclasses.replace(em_state, target_cameras=cameras)
  if searched and config.model.encoder == "efficientnet":
    em_state = dataclasses.replace(em_state, view_template=_view_template(config, split, cameras))
  return em_state


def _view_template(
  config: Config, split: Split, cameras: Float[np.ndarray, "N 7"]
) -> ViewTemplate | None:
  """What views of unseen images are found by, from some of the training images."""
  file = encoder_file(config.model)
  if file is None or len(cameras) < _FEW:
    return None
  # The cameras are those of `split.subsample(_HULL_IMAGES)`.
  split, some = split.subsample(_HULL_IMAGES), every_nth(len(cameras), _VIEW_IMAGES)
  maps = encoder_maps(split[some], file, spec=CropSpec.from_config(config.data))
  return fit_view_template(maps, cameras[some], coarse_grid(PoseSearch.from_config(config)))


def bare_em_state(half_vertices: Float[np.ndarray, "Vh 3"]) -> EMState:
  """Round 0 with a template and without parts."""
  zero = np.zeros((), np.int32)
  return EMState(round=zero, round_start=zero, template=Template(half_vertices=half_vertices))


def _maps(config: Config, split: Split, *, limit: int) -> np.ndarray:
  """The silhouettes [N, S, S, 1] of at most `limit` images, and after them any part maps."""

  def of_batch(batch: Batch) -> np.ndarray:
    masks = np.asarray(batch.mask)[..., None]
    return masks if batch.parts is None else np.concatenate([masks, batch.parts], axis=-1)

  return np.concatenate(
    [
      of_batch(batch)[batch.valid]
      for batch, _ in evaluation_batches(
        split.subsample(limit),
        CropSpec(image_size=_SIZE, padding=config.data.padding),
        batch_size=config.train.batch_size,
        parts=config.init_parts,
      )
    ]
  )
