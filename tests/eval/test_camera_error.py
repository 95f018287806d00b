"""Camera errors: known angles, chance, and the depth-reversal twin."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from umr_jax.eval.alignment import global_rotation
from umr_jax.eval.camera_error import angles_deg, camera_errors, twin_rotations
from umr_jax.geometry import camera, quaternion


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
  twins[:, 3:] = quaternion.from_matrix(jnp.asarray(twin_rotations(own), jnp.float32))
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
