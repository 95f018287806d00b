"""The grid of views: opposites, the prior, and means that are finer than the grid."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.rotations import degrees_between
from umr_jax.init.view_grid import make_view_grid, mean_rotations
from umr_jax.models.camera_heads import upright_rotation


@pytest.fixture(scope="module")
def grid():
  return make_view_grid(12, np.array([0.0, 15.0, 60.0]), np.array([-10.0, 0.0]))


def rotation(azimuth, elevation, roll):
  return upright_rotation(*(jnp.float32(angle) for angle in (azimuth, elevation, roll)))


def nearest_view(grid, *angles):
  target = jnp.broadcast_to(rotation(*angles)[None], grid.rotations.shape)
  return int(np.argmin(degrees_between(grid.rotations, target)))


def test_every_view_is_there_once_and_its_opposite_is_half_a_turn_away(grid):
  assert grid.rotations.shape == (12 * 3 * 2, 4)
  turned = rotation(30.0 + 180.0, 15.0, -10.0)
  view = nearest_view(grid, 30.0, 15.0, -10.0)
  np.testing.assert_allclose(
    degrees_between(grid.rotations[grid.opposite[view]][None], turned[None]), 0.0, atol=0.1
  )
  np.testing.assert_array_equal(grid.opposite[grid.opposite], np.arange(len(grid.opposite)))
  assert np.bincount(grid.azimuth).tolist() == [6] * 12


def test_level_views_a_little_from_above_are_likelier_and_none_is_excluded(grid):
  prior = np.asarray(grid.log_prior).reshape(12, 3, 2)
  np.testing.assert_allclose(prior, np.broadcast_to(prior[:1], prior.shape), atol=1e-6)
  assert prior[0, 1, 1] > prior[0, 0, 1] > prior[0, 2, 1] > -6.0
  assert prior[0, 1, 1] > prior[0, 1, 0]


def test_an_odd_number_of_azimuths_is_refused():
  with pytest.raises(ValueError, match="found 7 azimuths; expected an even number"):
    make_view_grid(7, np.zeros(1), np.zeros(1))


def test_a_mean_lies_between_its_views_and_ignores_other_modes(grid):
  target = rotation(40.0, 15.0, -10.0)[None]
  near = np.array([nearest_view(grid, azimuth, 15.0, -10.0) for azimuth in (30.0, 60.0)])
  logits = np.full((1, len(grid.rotations)), -20.0, np.float32)
  logits[0, near[0]], logits[0, near[1]] = np.log(2.0), 0.0
  logits[0, grid.opposite[near[0]]] = 0.5
  mean = mean_rotations(jnp.asarray(logits), jnp.asarray(near[:1], jnp.int32), grid.rotations)
  assert degrees_between(mean, target)[0] < 1.0
