"""Posteriors over views: they find the view that an image shows, and say how sure that is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.init.planted import planted_images, planted_template, planted_views
from umr_jax.init.voxel_template import view_maps
from umr_jax.models.view_template import (
  credible_region,
  view_cameras,
  view_logits,
  view_probabilities,
)
from umr_jax.types import Projection, ViewTemplate

COUNT = 36

pytestmark = pytest.mark.usefixtures("optimized")


@pytest.fixture(scope="module")
def template():
  """The planted thing in the planted views, its features as they are."""
  voxels = planted_template()
  maps = view_maps(voxels.occupied, planted_views(COUNT), size=24)
  return ViewTemplate(
    projection=Projection(jnp.zeros(6), jnp.eye(6)),
    features=voxels.features,
    voxels=maps.voxels.astype(jnp.int16),
    centers=maps.centers,
    sides=maps.sides,
    rotations=planted_views(COUNT),
    log_prior=jnp.zeros(COUNT),
    temperature=jnp.float32(1.0),
  )


@pytest.fixture(scope="module")
def crops():
  """Maps whose signed roots are the planted features, and silhouettes: each fills its crop."""
  values = planted_images(COUNT).values
  features = values[..., :-1]
  return jnp.sign(features) * jnp.square(features), values[..., -1]


def test_the_likeliest_view_is_the_one_that_is_shown(template, crops):
  probs = np.asarray(view_probabilities(template, *crops))
  np.testing.assert_allclose(probs.sum(axis=1), 1.0, rtol=1e-5)
  assert (probs.argmax(axis=1) == np.arange(COUNT)).mean() > 0.9
  warm = np.asarray(view_probabilities(template.replace(temperature=jnp.float32(20.0)), *crops))
  np.testing.assert_array_equal(warm.argmax(axis=1), probs.argmax(axis=1))
  assert warm.max(axis=1).mean() < 0.5 * probs.max(axis=1).mean()


def test_the_prior_counts_where_images_say_nothing(template, crops):
  maps, masks = crops
  prior = jnp.zeros(COUNT).at[7].set(4.0)
  nothing = view_logits(template.replace(log_prior=prior), 0.0 * maps, 0.0 * masks)
  known = view_logits(template, 0.0 * maps, 0.0 * masks)
  np.testing.assert_allclose(nothing - known, jnp.broadcast_to(prior[None], known.shape), atol=1e-4)


def test_cameras_place_each_view_at_the_silhouette(template):
  side, center = 0.4, np.array([0.2, -0.1])
  at = (2.0 * np.arange(64) + 1.0) / 64 - 1.0
  x, y = np.meshgrid(at, at)
  square = (np.abs(x - center[0]) < side / 2) & (np.abs(y - center[1]) < side / 2)
  cameras = np.asarray(view_cameras(template, jnp.asarray(square[None], jnp.float32)))[0]
  np.testing.assert_allclose(cameras[:, 0] * template.sides, side, rtol=0.05)
  middles = cameras[:, 1:3] + cameras[:, :1] * np.asarray(template.centers)
  np.testing.assert_allclose(middles, np.broadcast_to(center, middles.shape), atol=0.02)
  np.testing.assert_array_equal(cameras[:, 3:], template.rotations)


def test_a_region_is_the_fewest_views_that_reach_the_share(rng):
  probs = np.asarray(jax.nn.softmax(jnp.asarray(2.0 * rng.normal(size=(50, 30)), jnp.float32)))
  for share in (0.5, 0.9):
    region = credible_region(probs, share)
    inside = np.where(region, probs, 0.0)
    assert (inside.sum(axis=1) >= share - 1e-6).all()
    least = np.where(region, probs, np.inf).min(axis=1)
    assert (inside.sum(axis=1) - least < share).all()
    assert (least >= np.where(region, 0.0, probs).max(axis=1)).all()
  sure = np.eye(4, dtype=np.float32)
  np.testing.assert_array_equal(credible_region(sure, 0.9), sure > 0.5)
