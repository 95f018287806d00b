"""Cameras: where hypotheses start, what bounds them, finite gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.models.run_head import apply, run
from umr_jax.geometry import camera, quaternion
from umr_jax.models.camera_heads import CameraHeads, _positive, upright_rotation
from umr_jax.models.initialize import draw_variables


def heads_of(hypotheses, **options):
  """Camera heads as the paper has them; options replace its own."""
  paper = {"spread": True, "pose": "free", "elevation": (-20.0, 50.0), "roll": 20.0}
  return CameraHeads(hypotheses, **{**paper, "trunk_deviation": 0.02, **options})


@pytest.mark.parametrize("hypotheses", [1, 8])
def test_cameras_start_upright_and_of_the_template_s_size(feature, hypotheses):
  (cameras, logits), _ = run(heads_of(hypotheses, spread=False), feature, train=True)
  assert cameras.shape == (6, hypotheses, 7)
  np.testing.assert_array_equal(logits, np.zeros((6, hypotheses)))
  np.testing.assert_allclose(jnp.linalg.norm(cameras[..., 3:], axis=-1), 1.0, rtol=1e-5)
  np.testing.assert_allclose(cameras[..., 0], 1.0, atol=0.7)
  # The object's vertical points up in the image, whose y points down.
  up = camera.rotation(cameras)[..., :, 2]
  assert np.mean(np.asarray(up[..., 1])) < -0.9


def test_hypotheses_start_around_the_vertical(feature):
  heads = heads_of(8)
  variables = draw_variables(heads, feature, seed=0, train=True)
  variables["params"]["quaternion"]["kernel"] *= 0.0
  (cameras, _), _ = apply(heads, variables, feature, train=True)
  rotation = np.asarray(camera.rotation(cameras[0]))
  for k in range(8):
    angle = 2 * np.pi * k / 8
    turn = np.array(
      [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    upright = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
    np.testing.assert_allclose(rotation[k], upright @ turn, atol=1e-5)


@pytest.mark.parametrize("hypotheses", [1, 4])
def test_a_zero_quaternion_and_a_shut_scale_give_finite_numbers_and_gradients(feature, hypotheses):
  heads = heads_of(hypotheses)
  variables = draw_variables(heads, feature, seed=0, train=True)
  params = dict(variables["params"])
  params["quaternion"] = jax.tree.map(jnp.zeros_like, params["quaternion"])
  params["scale"] = {**params["scale"], "bias": params["scale"]["bias"] - 50.0}

  def loss(params):
    (cameras, logits), _ = heads.apply(
      {**variables, "params": params}, feature, train=True, mutable=["batch_stats"]
    )
    return jnp.sum(jnp.square(cameras)) + jnp.sum(logits), cameras

  gradient, cameras = jax.jit(jax.grad(loss, has_aux=True))(params)
  assert np.isfinite(cameras).all()
  assert (np.asarray(cameras[..., 0]) > 0.0).all()
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_heads_of_one_network_differ_from_each_other(feature):
  (cameras, _), _ = run(heads_of(4, spread=False), feature, train=True)
  assert not np.allclose(cameras[:, 0], cameras[:, 1])


def test_a_scale_that_reached_nothing_may_grow_again():

  x = jnp.array([-0.5, 0.0, 0.7])
  np.testing.assert_array_equal(_positive(x), [0.0, 0.0, jnp.float32(0.7)])
  np.testing.assert_array_equal(jax.grad(lambda x: _positive(x).sum())(x), 1.0)


def test_the_trunk_starts_with_the_deviation_that_is_asked_for(feature):
  for deviation in (0.02, 0.3):
    _, variables = run(heads_of(4, trunk_deviation=deviation), feature, train=True)
    kernel = variables["params"]["trunk1"]["kernel"]
    np.testing.assert_allclose(np.std(kernel), deviation, rtol=0.2)


def test_the_view_is_the_product_of_its_turns(rng):
  angles = rng.uniform(-180, 180, size=(7, 3))
  got = upright_rotation(*(jnp.asarray(column, jnp.float32) for column in angles.T))
  for (azimuth, elevation, roll), q in zip(angles, np.asarray(got), strict=True):
    expected = (
      Rotation.from_euler("z", roll, degrees=True)
      * Rotation.from_euler("x", elevation, degrees=True)
      * Rotation.from_euler("x", 90.0, degrees=True)
      * Rotation.from_euler("z", azimuth, degrees=True)
    )
    gap = (Rotation.from_quat(q[[1, 2, 3, 0]]) * expected.inv()).magnitude()
    assert gap < 1e-4


@pytest.mark.parametrize("hypotheses", [1, 4])
def test_elevation_and_roll_stay_within_bounds_whatever_the_feature(rng, hypotheses):
  feature = jnp.asarray(1e4 * rng.normal(size=(16, 20)), jnp.float32)
  head = heads_of(hypotheses, pose="upright", trunk_deviation=(2.0 / 20) ** 0.5)
  variables = draw_variables(head, feature, seed=0, train=True)
  (cameras, _), _ = head.apply(variables, feature, train=True, mutable=["batch_stats"])
  up = np.asarray(quaternion.to_matrix(cameras[..., 3:]))[..., :, 2]
  # Object z in the camera's frame: -z is towards the viewer, -y up on the screen.
  elevation = np.degrees(np.arcsin(np.clip(-up[..., 2], -1, 1)))
  roll = np.degrees(np.arctan2(up[..., 0], -up[..., 1]))
  assert elevation.min() >= -20.01 and elevation.max() <= 50.01
  assert np.abs(roll).max() <= 20.01
  assert np.ptp(elevation) > 1.0
