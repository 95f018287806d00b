"""The template for unseen images: it finds their views, and is no surer than it may be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.init.planted import planted_images, planted_views
from umr_jax.init.dense_features import ImageMaps
from umr_jax.init.view_calibration import (
  calibrated_temperature,
  fit_view_template,
  nearest_views,
)
from umr_jax.init.view_grid import make_view_grid
from umr_jax.models.view_template import credible_region, view_probabilities

COUNT = 80

pytestmark = pytest.mark.usefixtures("optimized")


def planted_maps(seed):
  """The planted features as a network's, whose signed roots are taken."""
  values = np.asarray(planted_images(COUNT, seed=seed).values)
  features = values[..., :-1]
  return ImageMaps(np.sign(features) * features**2, values[..., -1])


@pytest.mark.parametrize("true", [1.5, 4.0])
def test_the_temperature_is_that_by_which_the_views_were_drawn(rng, true):
  logits = (3.0 * rng.normal(size=(3000, 60))).astype(np.float32)
  views = np.asarray(jax.random.categorical(jax.random.key(0), jnp.asarray(logits) / true))
  found = calibrated_temperature(logits, views)
  np.testing.assert_allclose(found, true, rtol=0.12)


def test_views_of_unseen_images_are_within_their_regions():
  grid = make_view_grid(24, np.array([5.0, 20.0, 35.0]), np.zeros(1))
  cameras = np.concatenate(
    [np.ones((COUNT, 1)), np.zeros((COUNT, 2)), planted_views(COUNT, 1)], axis=1
  ).astype(np.float32)
  template = fit_view_template(planted_maps(1), cameras, grid)
  unseen = planted_maps(2)
  probs = np.asarray(
    view_probabilities(template, jnp.asarray(unseen.features), jnp.asarray(unseen.masks))
  )
  views = nearest_views(planted_views(COUNT, 2), grid.rotations)
  region = credible_region(probs, 0.9)
  assert region[np.arange(COUNT), views].mean() > 0.9
  # They say something.
  assert region.mean() < 0.3
