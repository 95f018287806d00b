"""From scores to cameras: views that suit everything, and means around the best one."""

import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.geometry import quaternion
from umr_jax.init.pose_search import select_cameras, view_rotations

ROTATIONS = view_rotations((-10.0, 40.0), 0.0)


def degrees(a, b):
  return np.degrees(2.0 * np.arccos(np.clip(abs(np.sum(np.asarray(a) * np.asarray(b), -1)), 0, 1)))


def scored(rng, *, count=200, blur=20.0):
  """Images from random views of the grid, and scores that fall off with the angle."""
  true = rng.integers(0, len(ROTATIONS), count)
  gaps = degrees(ROTATIONS[None], ROTATIONS[true][:, None])
  values = -((gaps / blur) ** 2) * 0.1 + 0.02 * rng.standard_normal(gaps.shape)
  return true, jnp.asarray(values, jnp.float32)


def places_of(values):
  """A place for each image and view that says which image and view it is."""
  rows, columns = np.indices(values.shape)
  return jnp.asarray(np.stack([1.0 + 0 * rows, rows, columns], -1), jnp.float32)


def test_the_best_view_says_where(rng):
  true, values = scored(rng)
  values = values.at[np.arange(len(true)), true].add(1.0)
  cameras = np.asarray(select_cameras(values, places_of(values), ROTATIONS, evenness=0.0))
  np.testing.assert_array_equal(cameras[:, 1], np.arange(len(true)))
  np.testing.assert_array_equal(cameras[:, 2], true)
  # One far ahead of all others: nothing is averaged.
  np.testing.assert_allclose(degrees(cameras[:, 3:], ROTATIONS[true]), 0.0, atol=0.1)


def test_views_that_suit_everything_draw_no_more_than_others(rng):
  true, values = scored(rng)
  attraction = np.zeros(len(ROTATIONS))
  attraction[:12] = 0.5
  spoilt = values + jnp.asarray(attraction, jnp.float32)[None]
  scale_shift = places_of(values)
  errors = [
    np.mean(degrees(select_cameras(v, scale_shift, ROTATIONS, evenness=e)[:, 3:], ROTATIONS[true]))
    for v, e in ((values, 0.0), (spoilt, 0.0), (spoilt, 0.5), (spoilt, 1.0))
  ]
  assert errors[1] > errors[2] > errors[3] and errors[1] > 1.5 * errors[0]
  # What is left of the pull is small beside what it was.
  assert errors[3] - errors[0] < 0.2 * (errors[1] - errors[0])


def test_around_the_best_view_the_mean_is_nearer_than_the_grid(rng):
  """Views between the grid's, whose neighbours score alike."""
  true, _ = scored(rng, count=300)
  turn = quaternion.from_axis_angle(jnp.array([[0.0, 0.0, 1.0]]), jnp.deg2rad(jnp.array([7.5])))
  between = quaternion.multiply(ROTATIONS[true], jnp.broadcast_to(turn, (len(true), 4)))
  gaps = degrees(ROTATIONS[None], between[:, None])
  values = jnp.asarray(-((gaps / 20.0) ** 2) * 0.1, jnp.float32)
  cameras = select_cameras(values, places_of(values), ROTATIONS, evenness=0.0)
  nearest = degrees(ROTATIONS[np.argmax(values, axis=1)], between)
  assert np.median(degrees(cameras[:, 3:], between)) < 0.8 * np.median(nearest)


def test_signs_of_quaternions_do_not_matter(rng):
  _, values = scored(rng)
  signs = jnp.asarray(rng.choice([-1.0, 1.0], (len(ROTATIONS), 1)), jnp.float32)
  scale_shift = places_of(values)
  one = select_cameras(values, scale_shift, ROTATIONS, evenness=0.5)[:, 3:]
  other = select_cameras(values, scale_shift, signs * ROTATIONS, evenness=0.5)[:, 3:]
  np.testing.assert_allclose(degrees(one, other), 0.0, atol=0.1)


@pytest.mark.parametrize("evenness", [0.0, 0.5, 1.0])
def test_one_image_alone_has_a_camera(evenness):
  values = jnp.zeros((1, len(ROTATIONS))).at[0, 7].set(1.0)
  camera = select_cameras(values, places_of(values), ROTATIONS, evenness=evenness)
  assert camera.shape == (1, 7) and np.isfinite(camera).all()
