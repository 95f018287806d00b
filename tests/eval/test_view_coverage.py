"""Coverage of posteriors over views, on posteriors whose truth is known."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from umr_jax.eval.predictions import Predictions
from umr_jax.eval.view_coverage import view_coverage, view_regions, wide_posteriors
from umr_jax.types import Projection, ViewTemplate

VIEWS = Rotation.from_euler("z", 30.0 * np.arange(12)[:, None], degrees=True)


def template():
  nothing = jnp.zeros(len(VIEWS))
  return ViewTemplate(
    projection=Projection(jnp.zeros(1), jnp.zeros((1, 1))),
    features=jnp.zeros((2, 2, 2, 1)),
    voxels=jnp.zeros((len(VIEWS), 4, 4), jnp.int16),
    centers=jnp.zeros((len(VIEWS), 2)),
    sides=nothing,
    rotations=jnp.asarray(VIEWS.as_quat()[:, [3, 0, 1, 2]], jnp.float32),
    log_prior=nothing,
    temperature=jnp.float32(1.0),
  )


def predictions(probs, true):
  count = len(probs)
  zeros = np.zeros(count)
  return Predictions(
    vertices=np.zeros((count, 3, 3), np.float32),
    rotations=np.broadcast_to(np.eye(3), (count, 3, 3)),
    mask_iou=zeros,
    mask_iou_hard=zeros,
    backface_ratio=zeros,
    silhouettes=[None] * count,
    has_camera=np.ones(count, bool),
    true_rotations=true,
    shapes=[None] * count,
    keypoints=[None] * count,
    correspondences=[None] * count,
    parts=[None] * count,
    view_probs=list(probs),
    shown=[None] * count,
  )


@pytest.fixture
def three():
  """Sure of view 2, of views 2 and 8, and of nothing."""
  probs = np.full((3, len(VIEWS)), 1e-6, np.float32)
  probs[0, 2] = 1.0
  probs[1, [2, 8]] = 0.5
  probs[2] = 1.0 / len(VIEWS)
  return probs / probs.sum(axis=1, keepdims=True)


def test_truth_counts_where_its_nearest_view_is_in_the_region(three):
  turn = Rotation.from_euler("xyz", [20, 30, 40], degrees=True)
  for view, held in ((2, [1, 1, 1]), (8, [0, 1, 1]), (5, [0, 0, 1])):
    # The true frame is another, and the truth lies a little beside the view.
    near = Rotation.from_euler("z", 30 * view + 7, degrees=True)
    true = np.broadcast_to((near * turn).as_matrix(), (3, 3, 3))
    found = view_coverage(predictions(three, true), template(), turn.as_matrix())
    np.testing.assert_array_equal(found["view_coverage"], held)


def test_wide_posteriors_are_told(three):
  told = predictions(three, np.broadcast_to(np.eye(3), (3, 3, 3)))
  regions = view_regions(told)["view_region"]
  np.testing.assert_allclose(regions, [1 / 12, 2 / 12, 11 / 12])
  assert wide_posteriors(told) == [2]


def test_a_model_without_posteriors_has_none_of_it():
  without = predictions([None, None], np.broadcast_to(np.eye(3), (2, 3, 3)))
  assert view_regions(without) == {} and wide_posteriors(without) == []
  assert view_coverage(without, None, np.eye(3)) == {}
