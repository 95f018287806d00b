"""Pose search: a target camera for every training image, before the first gradient step."""

import dataclasses

import jax
import numpy as np
from absl import logging

from umr_jax.data.batching import evaluation_batches
from umr_jax.data.dataset import Split
from umr_jax.data.transforms import CropSpec
from umr_jax.em.round import PoseSearchFunctions
from umr_jax.init.pose_search import CROP_SIZE, template_vertices
from umr_jax.train import parallel
from umr_jax.types import EMState, Topology, host


def with_target_cameras(
  em_state: EMState,
  split: Split,
  topology: Topology,
  *,
  functions: PoseSearchFunctions,
  padding: float,
  batch_size: int,
  parts: bool,
) -> EMState:
  """The state with a camera for every training image, by its template and canonical map.

  Every host renders all views, compares its own share of the images with them, and receives the
  scores of all.

  Args:
    em_state: whose template, and canonical map if it has one, are rendered.
    split: the training images.
    topology: of the template.
    functions: of the search.
    padding: of the crops; their size is the search's own.
    batch_size: crops at a time, over all hosts.
    parts: whether images are compared by their part maps, too.

  Source: Goel et al. 2020 (U-CMR), who keep cameras for every image. Departs: the cameras of Li et
    al. 2020 come from the network alone.
  """
  shapes = template_vertices(em_state, topology)
  views = host(functions.render_views(shapes, em_state.canonical_uv))
  replicated = parallel.replicate(views)
  size = (len(split), len(views.rotations))
  values, scale_shift = np.zeros(size, np.float32), np.zeros((*size, 3), np.float32)
  for batch, _ in evaluation_batches(
    split,
    CropSpec(image_size=CROP_SIZE, padding=padding),
    batch_size=batch_size,
    parts=parts,
    shard=(jax.process_index(), jax.process_count()),
  ):
    scores = parallel.unshard(functions.score_views(replicated, parallel.shard_batch(batch)))
    scores = jax.device_get(parallel.gather_rows(scores))
    rows = scores.index[scores.valid]
    values[rows] = scores.values[scores.valid]
    scale_shift[rows] = scores.scale_shift[scores.valid]
  cameras = host(functions.select_cameras(values, scale_shift, views.rotations))
  logging.info("Found a camera for each of %d images.", len(cameras))
  return dataclasses.replace(em_state, target_cameras=cameras)
