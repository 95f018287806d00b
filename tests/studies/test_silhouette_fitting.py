"""Fitting a mesh to silhouettes: it gets there, and stays smooth."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.studies.silhouette_fitting import fit_silhouettes, silhouette_iou, views_of
from umr_jax.geometry.icosphere import icosphere


@pytest.fixture
def cameras(rng):
  turns = rng.normal(size=(6, 4))
  turns /= np.linalg.norm(turns, axis=-1, keepdims=True)
  shifts = np.tile([0.6, 0.0, 0.0], (6, 1))
  return jnp.asarray(np.concatenate([shifts, turns], axis=-1), jnp.float32)


def test_iou_has_the_closed_form():
  a, b = np.zeros((2, 1, 8, 8), np.float32)
  a[:, :4], b[:, 2:6] = 1.0, 1.0
  assert float(silhouette_iou(jnp.asarray(a), jnp.asarray(b))) == pytest.approx(2 / 6)
  assert float(silhouette_iou(jnp.zeros((1, 4, 4)), jnp.zeros((1, 4, 4)))) == 0.0


def test_a_sphere_becomes_an_ellipsoid(cameras):
  sphere, faces = icosphere(1)
  goal = jnp.asarray(sphere * [1.1, 0.6, 0.8], jnp.float32)
  target = views_of(goal, faces, cameras, image_size=24, sigma=1e-3)
  start = jnp.asarray(sphere, jnp.float32)
  fitted = fit_silhouettes(target, cameras, start, faces, steps=60, rate=0.02, sigma=1e-3)

  def iou(mesh):
    return float(silhouette_iou(views_of(mesh, faces, cameras, image_size=24, sigma=1e-3), target))

  assert iou(start) < 0.75
  assert iou(fitted) > 0.93
  assert np.abs(np.asarray(fitted - goal)).mean() < 0.6 * np.abs(np.asarray(start - goal)).mean()
