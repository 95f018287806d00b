"""Upright cameras stay within their bounds; maps are normalized image by image."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from umr_jax.geometry import quaternion
from umr_jax.models.camera_heads import CameraHeads, upright_rotation
from umr_jax.models.initialize import draw_variables
from umr_jax.models.layers import GroupNorm, map_norm


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
  head = CameraHeads(hypotheses, pose="upright", elevation=(-20.0, 50.0), roll=20.0, norm="group")
  variables = draw_variables(head, feature, seed=0, train=True)
  (cameras, _), _ = head.apply(variables, feature, train=True, mutable=["batch_stats"])
  up = np.asarray(quaternion.to_matrix(cameras[..., 3:]))[..., :, 2]
  # Object z in the camera's frame: -z is towards the viewer, -y up on the screen.
  elevation = np.degrees(np.arcsin(np.clip(-up[..., 2], -1, 1)))
  roll = np.degrees(np.arctan2(up[..., 0], -up[..., 1]))
  assert elevation.min() >= -20.01 and elevation.max() <= 50.01
  assert np.abs(roll).max() <= 20.01
  assert np.ptp(elevation) > 1.0


def test_group_norm_is_each_images_own(rng):
  x = rng.normal(size=(3, 4, 5, 32)).astype(np.float32) * 3 + 1
  layer = GroupNorm()
  variables = draw_variables(layer, jnp.asarray(x), seed=0, train=True)
  got = layer.apply(variables, jnp.asarray(x), train=True)
  groups = x.reshape(3, 20, 2, 16).astype(np.float64)
  mean, var = groups.mean((1, 3), keepdims=True), groups.var((1, 3), keepdims=True)
  expected = ((groups - mean) / np.sqrt(var + 1e-5)).reshape(x.shape)
  np.testing.assert_allclose(got, expected, atol=1e-4)
  alone = layer.apply(variables, jnp.asarray(x[:1]), train=False)
  np.testing.assert_allclose(alone[0], got[0], atol=1e-6)


def test_an_unknown_normalization_is_refused():
  with pytest.raises(ValueError, match=r"layer.*batch, group"):
    map_norm("layer", name="bn")
