"""EM over views: posteriors as broad as asked for, rounds that explain more, no order of images."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.init.planted import planted_images, planted_template
from umr_jax.init.view_em import (
  begin,
  e_step,
  em_rounds,
  explained_share,
  m_step,
  view_posterior,
  view_scores,
)
from umr_jax.init.view_grid import make_view_grid
from umr_jax.init.voxel_template import VoxelTemplate
from umr_jax.models.framed_images import FramedImages
from umr_jax.models.view_template import render_features

EVEN, PREFERRED = jnp.float32(-0.5), jnp.float32(0.5)

pytestmark = pytest.mark.usefixtures("optimized")


@pytest.fixture(scope="module")
def grid():
  return make_view_grid(12, np.array([0.0, 15.0, 30.0]), np.zeros(1))


@pytest.fixture(scope="module")
def images():
  return planted_images(40)


@pytest.fixture
def fit(images, grid):
  template = planted_template()
  noise = jax.random.normal(jax.random.key(0), template.features.shape)
  return begin(images, VoxelTemplate(template.occupied, 0.3 * noise), grid)


def test_scores_are_half_of_what_a_view_takes_off_the_weighted_squared_residual(images, fit, grid):
  scores = np.asarray(view_scores(images, fit, grid))
  weights = np.array([*[1.0] * 6, 0.2])  # of the features and of the silhouette
  views = np.asarray(render_features(fit.template.features, fit.maps.voxels))
  for i, k in ((0, 0), (7, 20), (39, 35)):
    values = np.asarray(images.values[i])
    taken = (values**2 @ weights).sum() - ((values - views[k]) ** 2 @ weights).sum()
    np.testing.assert_allclose(scores[i, k], 0.5 * taken, rtol=1e-3, atol=1e-3)


def test_scores_are_of_one_size_whatever_the_frame(images, grid):
  larger = FramedImages(
    jnp.repeat(jnp.repeat(images.values, 2, 1), 2, 2),
    *(getattr(images, name) for name in ("centers", "sides")),
  )
  template = planted_template()
  small, large = (view_scores(x, begin(x, template, grid), grid) for x in (images, larger))
  # A frame of 24 pixels shows outlines coarsely.
  assert np.corrcoef(np.ravel(small), np.ravel(large))[0, 1] > 0.95
  np.testing.assert_allclose(np.mean(large), np.mean(small), atol=0.1 * float(jnp.std(small)))


@pytest.mark.parametrize("perplexity", [2.0, 8.0, 30.0])
def test_posteriors_are_as_broad_as_asked_for(grid, perplexity, rng):
  scores = jnp.asarray(5.0 * rng.normal(size=(200, len(grid.rotations))), jnp.float32)
  posterior = np.asarray(view_posterior(scores, grid, jnp.float32(perplexity), EVEN))
  np.testing.assert_allclose(posterior.sum(axis=1), 1.0, rtol=1e-5)
  entropy = -(posterior * np.log(np.maximum(posterior, 1e-30))).sum(axis=1).mean()
  # Evening out the azimuths afterwards changes it a little.
  np.testing.assert_allclose(np.exp(entropy), perplexity, rtol=0.1)


def used_azimuths(scores, grid, preference):
  """The share of the images at each azimuth."""
  posterior = view_posterior(jnp.asarray(scores, jnp.float32), grid, jnp.float32(30.0), preference)
  return np.bincount(grid.azimuth, np.asarray(posterior).sum(axis=0)) / len(scores)


def test_an_azimuth_that_most_images_have_becomes_less_likely_or_more(grid):
  scores = np.zeros((50, len(grid.rotations)))
  scores[:, np.asarray(grid.azimuth) % 6 == 0] = 0.02  # both sides, a little
  even, plain, preferred = (
    used_azimuths(scores, grid, jnp.float32(power)) for power in (-0.5, 0.0, 0.5)
  )
  assert even[0] < plain[0] < preferred[0]
  np.testing.assert_allclose(preferred[0], preferred[6], rtol=1e-4)


def test_what_is_preferred_is_no_end_and_no_side(grid):
  scores = np.zeros((50, len(grid.rotations)))
  scores[:, np.asarray(grid.azimuth) == 2] = 0.02
  plain, preferred = (used_azimuths(scores, grid, jnp.float32(power)) for power in (0.0, 0.5))
  gain = preferred / plain
  # The mirror images of azimuth 2 become as much more likely.
  np.testing.assert_allclose(gain[[4, 8, 10]], gain[2], rtol=1e-3)
  assert gain[2] > 1.01 > 0.999 > gain[[0, 1, 3]].max()


def test_every_round_explains_more(images, fit, grid):
  shares = []
  for perplexity in np.geomspace(8.0, 1.5, 10):
    fit = em_rounds(images, fit, grid, [float(perplexity)], preference=-0.5)
    shares.append(explained_share(images, fit, grid))
  assert np.diff(shares).min() > -2e-3
  assert shares[-1] > shares[0] + 0.03


def test_the_true_template_explains_all_but_the_noise(grid):
  images = planted_images(24, noise=0.0)
  fit = begin(images, planted_template(), grid)
  assert explained_share(images, fit, grid) > 0.7
  noisy = planted_images(24, noise=0.5)
  assert explained_share(noisy, fit, grid) < explained_share(images, fit, grid) - 0.1


def test_the_order_of_images_makes_no_difference(images, fit, grid):
  order = np.random.default_rng(1).permutation(40)
  shuffled = jax.tree.map(lambda x: x[order], images)
  one = em_rounds(images, fit, grid, (8.0, 4.0, 2.0), preference=-0.5)
  other = em_rounds(
    shuffled,
    dataclasses.replace(fit, posterior=fit.posterior[order]),
    grid,
    (8.0, 4.0, 2.0),
    preference=-0.5,
  )
  np.testing.assert_allclose(one.posterior[order], other.posterior, atol=2e-3)
  np.testing.assert_allclose(one.template.features, other.template.features, atol=2e-3)


def test_a_new_shape_is_carved_from_posteriors(images, grid):
  template = planted_template()
  x = jnp.arange(24)[:, None, None]
  half = VoxelTemplate(template.occupied & (x > 6), template.features)
  fit = e_step(images, begin(images, half, grid), grid, 2.0, preference=-0.5)
  carved = m_step(images, fit, grid, shape=True)
  assert carved.template.occupied.sum() != half.occupied.sum()
  kept, new = (
    em_rounds(images, one, grid, (2.0, 2.0), preference=-0.5)
    for one in (m_step(images, fit, grid), carved)
  )
  assert explained_share(images, new, grid) > explained_share(images, kept, grid)
