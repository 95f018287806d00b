"""target_camera_loss: closed forms, and the way back of a mesh that has shrunk to nothing."""

import jax
import jax.numpy as jnp
import numpy as np

from umr_jax.losses.target_camera import target_camera_loss

FOUND = jnp.array([[0.8, 0.1, -0.2, 1.0, 0.0, 0.0, 0.0]])


def loss(**changes):
  camera = FOUND.at[:, 0].set(changes.get("scale", 0.8))
  camera = camera.at[:, 1:3].set(jnp.asarray(changes.get("place", [0.1, -0.2])))
  half = jnp.deg2rad(changes.get("degrees", 0.0)) / 2
  camera = camera.at[:, 3].set(changes.get("sign", 1.0) * jnp.cos(half))
  camera = camera.at[:, 5].set(changes.get("sign", 1.0) * jnp.sin(half))
  return target_camera_loss(cameras=camera[:, None], found=FOUND)[0, 0]


def test_each_difference_has_its_closed_form():
  np.testing.assert_allclose(loss(), 0.0, atol=1e-6)
  np.testing.assert_allclose(loss(degrees=60.0), np.sin(np.pi / 6) ** 2, rtol=1e-5)
  np.testing.assert_allclose(loss(degrees=60.0, sign=-1.0), loss(degrees=60.0), rtol=1e-6)
  np.testing.assert_allclose(loss(scale=0.4), 0.25 * 0.25, rtol=1e-5)
  np.testing.assert_allclose(loss(place=[0.4, 0.2]), 0.25, rtol=1e-5)


def test_a_mesh_without_size_is_told_to_grow():
  slope = jax.grad(lambda scale: loss(scale=scale))(1e-12)
  assert np.isfinite(slope) and slope < 0.0
