"""Camera errors, and the similarity between the learned and the true frame."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.rotations import quaternions
from umr_jax.eval.camera_error import (
  Alignment,
  angles_deg,
  box_similarity,
  boxes,
  camera_errors,
  chordal_mean,
  global_rotation,
  twin_rotations,
)
from umr_jax.geometry import camera


def random_rotations(count, seed=0):
  return Rotation.random(count, random_state=seed).as_matrix()


@pytest.mark.parametrize("degrees", [0.0, 1e-6, 0.5, 30.0, 90.0, 179.0, 180.0])
def test_a_known_rotation_gives_its_angle(degrees):
  a, axes = random_rotations(50), np.random.default_rng(1).normal(size=(50, 3))
  axes /= np.linalg.norm(axes, axis=1, keepdims=True)
  b = Rotation.from_rotvec(np.radians(degrees) * axes).as_matrix() @ a
  np.testing.assert_allclose(angles_deg(a, b), degrees, atol=1e-6)


def test_angles_match_scipy():
  a, b = random_rotations(40, 1), random_rotations(40, 2)
  expected = np.degrees((Rotation.from_matrix(a) * Rotation.from_matrix(b).inv()).magnitude())
  np.testing.assert_allclose(angles_deg(a, b), expected, atol=1e-6)


def test_a_perfect_prediction_in_another_frame_has_no_error():
  true, frame = random_rotations(30), random_rotations(1, 5)[0]
  predicted = true @ frame
  alignment = global_rotation(predicted=predicted, true=true)
  plain, twin = camera_errors(predicted=predicted, true=true, alignment=alignment)
  np.testing.assert_allclose(plain, 0.0, atol=1e-6)
  np.testing.assert_allclose(twin, 0.0, atol=1e-6)


def test_a_prediction_that_is_the_twin_is_forgiven_by_the_second_number_only():
  true = random_rotations(100)
  plain, twin = camera_errors(predicted=twin_rotations(true), true=true, alignment=np.eye(3))
  assert np.median(plain) > 60.0
  np.testing.assert_allclose(twin, 0.0, atol=1e-6)


def test_the_twin_shows_a_symmetric_object_alike_with_reversed_depth():
  cameras = np.random.default_rng(0).normal(size=(20, 7)).astype(np.float32)
  cameras[:, 3:] /= np.linalg.norm(cameras[:, 3:], axis=1, keepdims=True)
  own = np.asarray(camera.rotation(jnp.asarray(cameras)))
  twins = cameras.copy()
  twins[:, 3:] = quaternions(twin_rotations(own))
  points = np.random.default_rng(1).normal(size=(20, 9, 3)).astype(np.float32)
  partners = points * np.array([1.0, -1.0, 1.0], np.float32)
  shown = np.array(camera.project(jnp.asarray(points), jnp.asarray(cameras)))
  twin = np.array(camera.project(jnp.asarray(partners), jnp.asarray(twins)))
  np.testing.assert_allclose(twin[..., :2], shown[..., :2], atol=1e-5)
  offset = camera.DEPTH_OFFSET
  np.testing.assert_allclose(twin[..., 2] - offset, offset - shown[..., 2], atol=1e-5)
  np.testing.assert_array_equal(twin_rotations(twin_rotations(own)), own)


def test_guessing_has_the_error_of_chance():
  # Angles between random rotations have density (1 - cos t) / pi: the median solves t - sin t =
  # pi / 2, which is 132.3 degrees.
  plain, twin = camera_errors(
    predicted=random_rotations(20000, 1), true=random_rotations(20000, 2), alignment=np.eye(3)
  )
  assert np.median(plain) == pytest.approx(132.3, abs=1.0)
  assert np.median(twin) < np.median(plain)


def drawn_rotations(rng, count):
  return Rotation.random(count, random_state=rng.integers(1 << 31)).as_matrix()


def test_a_change_of_frame_is_recovered_exactly(rng):
  true, frame = drawn_rotations(rng, 20), drawn_rotations(rng, 1)[0]
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
  rotations = drawn_rotations(rng, 6)
  mean = chordal_mean(rotations)
  assert np.linalg.det(mean) == pytest.approx(1.0)

  def cost(r):
    return sum(np.sum((r - other) ** 2) for other in rotations)

  for candidate in drawn_rotations(rng, 500):
    assert cost(mean) <= cost(candidate)


def test_a_minority_of_wrong_cameras_moves_the_rotation_little(rng):
  true = drawn_rotations(rng, 200)
  predicted = true.copy()
  predicted[:40] = drawn_rotations(rng, 40)
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
