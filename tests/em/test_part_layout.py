"""Cameras from where parts lie."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.em.camera_bank import view_rotations
from umr_jax.em.part_layout import Layout, layout_cameras, part_layout
from umr_jax.geometry import quaternion
from umr_jax.models.camera_heads import upright_rotation

COUNT = 300
# Nose, tail, fin and belly: all in the mirror plane, as what comes in pairs is too.
CENTERS = np.array([[0.7, 0.0, 0.0], [-0.7, 0.0, 0.1], [-0.5, 0.0, 0.5], [0.1, 0.0, -0.3]])


@pytest.fixture
def seen(rng):
  """Cameras around an object of four parts, and where each sees the centres."""
  angles = [rng.uniform(low, high, COUNT) for low, high in ((0, 360), (0, 45), (-5, 5))]
  views = upright_rotation(*(jnp.asarray(a, jnp.float32) for a in angles))
  scale = rng.uniform(1.0, 1.3, (COUNT, 1, 1))
  place = rng.uniform(-0.1, 0.1, (COUNT, 1, 2))
  rows = np.asarray(quaternion.to_matrix(views))[:, :2]
  points = scale * np.einsum("nij,pj->npi", rows, CENTERS) + place
  points += 0.02 * rng.normal(size=points.shape)
  return np.asarray(views), points.astype(np.float32), scale[:, 0], place[:, 0]


def test_views_are_found_from_the_centres_of_four_parts(seen, rng):
  views, points, scale, place = seen
  weights = rng.uniform(0.5, 1.0, (COUNT, 4)) * (rng.uniform(size=(COUNT, 4)) > 0.15)
  weights /= weights.sum(axis=1, keepdims=True)
  layout = Layout(jnp.asarray(points), jnp.asarray(weights, jnp.float32))
  rotations = view_rotations((0.0, 45.0), 5.0)
  found = np.asarray(jax.jit(layout_cameras)(layout, rotations, key=jax.random.key(0)))
  # Nobody knows which end is the front.
  half_turn = jnp.broadcast_to(jnp.array([0.0, 0.0, 0.0, 1.0]), (COUNT, 4))
  turned = quaternion.multiply(jnp.asarray(views), half_turn)
  error = min((_degrees(found[:, 3:], v) for v in (views, turned)), key=np.median)
  nearest = _degrees(np.repeat(views, len(rotations), axis=0), jnp.tile(rotations, (COUNT, 1)))
  floor = np.median(nearest.reshape(COUNT, -1).min(axis=1))
  assert np.median(error) < floor + 6.0
  good = error < 20.0
  assert good.mean() > 0.7
  ratio = found[good, 0] / scale[good, 0]
  assert np.std(ratio) / np.mean(ratio) < 0.15
  # The origin is where photographs have their middles: at the object's, up to their own places.
  assert np.median(np.linalg.norm(found[good, 1:3] - place[good], axis=1)) < 0.25


def test_a_part_has_its_centre_where_its_pixels_are():
  parts = np.zeros((2, 16, 16, 3), np.float32)
  parts[0, 4:8, 8:12, 0] = 1.0
  parts[0, 0:2, 0:2, 1] = 1.0  # too small to be sure of
  parts[1, 8:16, :8, 2] = 0.5
  layout = part_layout(jnp.asarray(parts))
  np.testing.assert_allclose(layout.points[0, 0], [0.25, -0.25], atol=1e-6)
  np.testing.assert_allclose(layout.points[1, 2], [-0.5, 0.5], atol=1e-6)
  np.testing.assert_allclose(layout.weights, [[1, 0, 0], [0, 0, 1]], atol=1e-6)


def test_a_photograph_without_parts_gets_a_finite_camera(seen):
  _, points, _, _ = seen
  weights = np.full((COUNT, 4), 0.25, np.float32)
  weights[0], weights[1] = 0.0, [1.0, 0.0, 0.0, 0.0]
  layout = Layout(jnp.asarray(points), jnp.asarray(weights))
  found = layout_cameras(layout, view_rotations((0.0, 45.0), 5.0), key=jax.random.key(1))
  assert np.isfinite(found).all() and (np.asarray(found[:, 0]) > 0.0).all()


def _degrees(a, b):
  return np.degrees(np.asarray(quaternion.geodesic_angle(jnp.asarray(a), jnp.asarray(b))))
