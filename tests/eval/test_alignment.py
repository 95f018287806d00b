"""The similarity between the learned and the true frame: it recovers what was done to the truth."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from umr_jax.eval.alignment import (
  Alignment,
  box_similarity,
  boxes,
  chordal_mean,
  global_rotation,
)


def random_rotations(rng, count):
  return Rotation.random(count, random_state=rng.integers(1 << 31)).as_matrix()


def test_a_change_of_frame_is_recovered_exactly(rng):
  true, frame = random_rotations(rng, 20), random_rotations(rng, 1)[0]
  # X_true = frame X_learned: the camera sees the same object either way.
  predicted = true @ frame
  found = global_rotation(predicted=predicted, true=true)
  np.testing.assert_allclose(predicted @ found, true, atol=1e-12)
  points = rng.normal(size=(5, 3))
  np.testing.assert_allclose(
    Alignment(found, np.zeros(3), 1.0).apply(points @ frame), points, atol=1e-12
  )


def test_the_mean_of_rotations_about_one_axis_is_their_middle():
  turns = Rotation.from_rotvec(np.radians([[0, 0, 10], [0, 0, 30], [0, 0, 50]])).as_matrix()
  expected = Rotation.from_rotvec(np.radians([0, 0, 30])).as_matrix()
  np.testing.assert_allclose(chordal_mean(turns), expected, atol=1e-12)


def test_the_mean_has_the_least_sum_of_squared_distances(rng):
  rotations = random_rotations(rng, 6)
  mean = chordal_mean(rotations)
  assert np.linalg.det(mean) == pytest.approx(1.0)

  def cost(r):
    return sum(np.sum((r - other) ** 2) for other in rotations)

  for candidate in random_rotations(rng, 500):
    assert cost(mean) <= cost(candidate)


def test_a_minority_of_wrong_cameras_moves_the_rotation_little(rng):
  true = random_rotations(rng, 200)
  predicted = true.copy()
  predicted[:40] = random_rotations(rng, 40)
  found = global_rotation(predicted=predicted, true=true)
  assert np.degrees(Rotation.from_matrix(found).magnitude()) < 10.0


def test_one_shape_alone_gets_its_box_centre_and_volume_right(rng):
  predicted, true = rng.normal(size=(2, 1, 30, 3)) * [[[[1.0, 2.0, 0.5]]], [[[3.0, 1.0, 2.0]]]]
  true = true + 4.0
  translation, scale = box_similarity(predicted=boxes(predicted), true=boxes(true))
  moved = boxes((predicted + translation) * scale)[0]
  expected = boxes(true)[0]
  np.testing.assert_allclose(moved.mean(axis=0), expected.mean(axis=0))
  np.testing.assert_allclose(np.prod(moved[1] - moved[0]), np.prod(expected[1] - expected[0]))


def test_over_a_set_translation_and_scale_are_the_published_means(rng):
  # For true shapes centred at the origin: the mean of centre differences and of volume roots.
  predicted = rng.normal(size=(7, 20, 3)) + rng.normal(size=(7, 1, 3))
  true = rng.normal(size=(7, 20, 3))
  true -= boxes(true).mean(axis=1, keepdims=True)
  translation, scale = box_similarity(predicted=boxes(predicted), true=boxes(true))
  expected_translation, expected_scale = np.zeros(3), 0.0
  for p, t in zip(predicted, true, strict=True):
    p_low, p_high, t_low, t_high = p.min(0), p.max(0), t.min(0), t.max(0)
    expected_translation += ((t_low + t_high) / 2 - (p_low + p_high) / 2) / 7
    expected_scale += (np.prod(t_high - t_low) / np.prod(p_high - p_low)) ** (1 / 3) / 7
  np.testing.assert_allclose(translation, expected_translation, atol=1e-12)
  assert scale == pytest.approx(expected_scale)


def test_a_flat_prediction_is_aligned_without_infinities():
  flat = boxes(np.array([[[0, 0, 0], [1, 1, 0]]], float))
  solid = boxes(np.array([[[0, 0, 0], [1, 1, 1]]], float))
  translation, scale = box_similarity(predicted=flat, true=solid)
  assert np.isfinite(translation).all() and np.isfinite(scale)
