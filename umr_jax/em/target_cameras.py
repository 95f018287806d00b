"""Target cameras, one for every training image: searched before training, fitted as shapes form."""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float

from umr_jax.data.batching import evaluation_batches
from umr_jax.data.dataset import Split
from umr_jax.data.transforms import CropSpec
from umr_jax.em.round import FitCameras
from umr_jax.eval.camera_error import angles_deg
from umr_jax.geometry.camera import rotation
from umr_jax.init.pose_search import (
  CROP_SIZE,
  PoseSearch,
  ViewScores,
  find_cameras,
  make_views,
  score_views,
  template_vertices,
)
from umr_jax.models.framed_images import frame_images
from umr_jax.progress import tracked
from umr_jax.train import parallel
from umr_jax.types import EMState, Model, Topology, host

# Images that are framed at a time.
_FRAMED = 64
# An extent of which images tell less is a guess.
_TOLD = 0.1


def framed_objects(split: Split, *, padding: float) -> Float[np.ndarray, "N S S 4"]:
  """Objects on nothing, each in a frame around its silhouette's centre of mass and of its area.

  Args:
    split: images with silhouettes.
    padding: of the crops in which their cameras are.

  Returns:
    RGB that is zero outside of the silhouette, and the silhouette.
  """
  spec = CropSpec(image_size=CROP_SIZE, padding=padding)
  return np.concatenate(
    [
      np.asarray(frame_images(batch.image, batch.mask, size=CROP_SIZE).values)[batch.valid]
      for batch, _ in evaluation_batches(split, spec, batch_size=_FRAMED, parts=False)
    ]
  )


def untold_dimensions(cameras: Float[np.ndarray, "N 7"]) -> list[str]:
  """What the images do not tell about the object's shape, a sentence each; for most sets none.

  An image tells an extent by the square of the length at which it shows that axis.

  Args:
    cameras: of all images.
  """
  rotations = np.asarray(rotation(jnp.asarray(cameras, jnp.float32)))
  told = np.mean(np.sum(rotations[:, :2] ** 2, axis=1), axis=0)
  return [
    f"Nearly all images show the object from {where}: its {extent} is a guess "
    f"({told[axis]:.0%} of it is told by the images)."
    for axis, where, extent in ((0, "in front or from behind", "length"), (1, "the side", "width"))
    if told[axis] < _TOLD
  ]


def with_target_cameras(
  em_state: EMState,
  split: Split,
  topology: Topology,
  *,
  search: PoseSearch,
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
    search: the grid of views.
    padding: of the crops; their size is the search's own.
    batch_size: crops at a time, over all hosts.
    parts: whether images are compared by their part maps, too.

  Source: Goel et al. 2020 (U-CMR), who keep cameras for every image. Departs: the cameras of Li et
    al. 2020 come from the network alone.
  """
  render_views = jax.jit(make_views(topology, elevation=search.elevation, roll=search.roll))
  views = host(render_views(template_vertices(em_state, topology), em_state.canonical_uv))
  replicated, score = parallel.replicate(views), parallel.pmap_map(score_views)
  batches = evaluation_batches(
    split,
    CropSpec(image_size=CROP_SIZE, padding=padding),
    batch_size=batch_size,
    parts=parts,
    shard=(jax.process_index(), jax.process_count()),
  )

  def scores() -> Iterator[ViewScores]:
    for batch, _ in batches:
      own = parallel.unshard(score(replicated, parallel.shard_batch(batch)))
      yield parallel.gather_rows(own)

  cameras = host(
    find_cameras(scores(), views.rotations, count=len(split), evenness=search.evenness)
  )
  logging.info("Found a camera for each of %d images.", len(cameras))
  return dataclasses.replace(em_state, target_cameras=cameras)


def with_fitted_cameras(
  em_state: EMState,
  split: Split,
  model: Model,
  *,
  fit: FitCameras,
  spec: CropSpec,
  batch_size: int,
) -> EMState:
  """The state with target cameras that were fitted to the images' silhouettes.

  What was found with one template for all images is a few degrees off; under each image's own shape
  its silhouette tells them.

  Args:
    em_state: with target cameras; without any, it stays as it is.
    split: the training images.
    model: predicts the shapes.
    fit: `Round.fit_cameras`: replicated model, sharded batch and cameras.
    spec: of the model's crops.
    batch_size: over all hosts.

  Departs: Li et al. 2020 have no cameras beside the network's.
  """
  before, found = em_state.target_cameras, []
  if before is None:
    return em_state
  replicated = parallel.replicate(model)
  batches = evaluation_batches(
    split,
    spec,
    batch_size=batch_size,
    parts=False,
    shard=(jax.process_index(), jax.process_count()),
  )
  for batch, _ in tracked(batches, "target cameras, images", total=len(split), step=batch_size):
    own = parallel.unshard(fit(replicated, *parallel.shard_batch((batch, before[batch.index]))))
    found.append(parallel.gather_rows((batch.index, own)))
  after = np.array(before)
  for index, cameras in found:
    after[index] = cameras
  turned = angles_deg(*(np.asarray(rotation(jnp.asarray(cameras))) for cameras in (before, after)))
  logging.info("Target cameras turned by a median of %.1f degrees.", np.median(turned))
  return dataclasses.replace(em_state, target_cameras=after)
