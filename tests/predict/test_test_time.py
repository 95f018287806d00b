"""Test-time optimisation of predictions: which masks and views they are given."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from tests.predict.spheres import CONFIG, MODEL, drawn, prediction, sphere
from umr_jax.config.settings import RefineConfig
from umr_jax.predict import test_time
from umr_jax.predict.test_time import KnownMasks, make_infer
from umr_jax.types import Projection, ViewTemplate

# Descent magnifies rounding, and more of it without optimizations.
pytestmark = pytest.mark.usefixtures("optimized")

VIEWS = ViewTemplate(
  projection=Projection(jnp.zeros(5), jnp.zeros((5, 2))),
  features=jnp.zeros((2, 2, 2, 2)),
  voxels=jnp.zeros((4, 6, 6), jnp.int16),
  centers=jnp.zeros((4, 2)),
  sides=jnp.ones(4),
  rotations=jnp.zeros((4, 4)),
  log_prior=jnp.zeros(4),
  temperature=jnp.float32(1.0),
)


def test_views_are_told_by_the_mask_that_is_known(monkeypatch):
  truth = [(0.5, 0.1, 0.0), (0.5, 0.1, 0.0)]
  seen, known = (drawn(*sphere(stretch=stretch, cameras=truth)) for stretch in (1.0, 1.3))
  said = prediction(mask=seen, cameras=truth, encoded=jnp.ones((2, 3, 3, 5)))
  monkeypatch.setattr(test_time, "infer", lambda model, images: said)
  asked = []

  def probabilities(template, maps, masks):
    asked.append((maps, masks))
    return jnp.full((len(masks), 4), 0.25)

  monkeypatch.setattr(test_time, "view_probabilities", probabilities)
  monkeypatch.setattr(test_time, "view_cameras", lambda template, masks: jnp.zeros((2, 4, 7)))
  once = dataclasses.replace(CONFIG, refine=RefineConfig())
  model = MODEL.replace(view_template=VIEWS)
  found = make_infer(once)(model, None, KnownMasks(known, jnp.array([False, True])))
  assert found.view_probs.shape == (2, 4) and found.view_cameras.shape == (2, 4, 7)
  assert found.encoded is None
  ((maps, masks),) = asked
  np.testing.assert_array_equal(maps, said.encoded)
  np.testing.assert_array_equal(masks[0], seen[0])
  np.testing.assert_allclose(masks[1], known[1], atol=1e-6)
  # What was compared is no result, whether or not there were views to compare it with.
  assert make_infer(once)(MODEL, None).encoded is None
  blind = prediction(mask=None, cameras=truth, encoded=said.encoded)
  assert test_time.with_views(blind, VIEWS) is blind


def test_a_run_without_refinement_reconstructs_in_one_pass(monkeypatch):
  mask = drawn(*sphere(stretch=1.3, cameras=[(0.5, 0.1, 0.0)]))
  said = prediction(mask=mask, cameras=[(0.45, 0.0, 0.0)])
  monkeypatch.setattr(test_time, "infer", lambda model, images: said)
  once = dataclasses.replace(CONFIG, refine=RefineConfig())
  assert make_infer(once)(MODEL, None) is said
  fitted = make_infer(CONFIG)(MODEL, None)
  assert np.abs(fitted.vertices - said.vertices).max() > 0.05
