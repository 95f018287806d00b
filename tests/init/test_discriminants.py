"""Fisher's discriminants: what tells voxels apart is found among what varies more."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from tests.init.planted import planted_images, planted_template
from umr_jax.init.dense_features import ImageMaps
from umr_jax.init.discriminants import DISCRIMINANTS, fit_discriminants
from umr_jax.init.view_em import begin, e_step
from umr_jax.init.view_grid import make_view_grid

pytestmark = pytest.mark.usefixtures("optimized")
NUISANCES = 12


@pytest.fixture(scope="module")
def grid():
  return make_view_grid(12, np.array([0.0, 15.0, 30.0]), np.zeros(1))


@pytest.fixture(scope="module")
def fitted(grid):
  """Planted images, with channels of one value an image beside their own, and their known views."""
  images = planted_images(80)
  fit = e_step(images, begin(images, planted_template(), grid), grid, 1.5, preference=-0.5)
  values = np.asarray(images.values)
  of_image = np.random.default_rng(0).normal(size=(80, 1, 1, NUISANCES)).astype(np.float32)
  nuisances = 2.0 * of_image * values[..., -1:]
  wide = np.concatenate([nuisances, values], axis=-1)
  return dataclasses.replace(images, values=jnp.asarray(wide)), fit


def test_channels_that_differ_among_images_alone_are_left_out(fitted, grid):
  matrix = fit_discriminants(*fitted, grid)
  assert matrix.shape == (NUISANCES + 6, DISCRIMINANTS)
  values = np.asarray(fitted[0].values)
  inside = values[values[..., -1] == 1.0][:, :-1]
  for column in matrix.T[:3]:
    nuisance, whole = np.std(inside[:, :NUISANCES] @ column[:NUISANCES]), np.std(inside @ column)
    assert nuisance < 0.6 * whole
  # Though they are most of what varies.
  assert inside[:, :NUISANCES].var(axis=0).min() > 10.0 * inside[:, NUISANCES:].var(axis=0).max()


def test_their_expected_square_norm_is_one(fitted, grid):
  images, fit = fitted
  found = ImageMaps(np.asarray(images.values[..., :-1]), np.asarray(images.values[..., -1]))
  found = found.projected(fit_discriminants(images, fit, grid))
  inside = found.features[found.masks == 1.0]
  np.testing.assert_allclose(np.square(inside - inside.mean(0)).sum(axis=-1).mean(), 1.0, atol=0.02)
