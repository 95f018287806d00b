"""orientation_loss: reference value, what it pulls on, and points on the plane."""

import jax
import jax.numpy as jnp
import numpy as np

from umr_jax.losses.orientation import orientation_loss


def test_of_the_unit_sphere_is_the_reference_value(fine_topology):
  loss = orientation_loss(jnp.asarray(fine_topology.sphere))
  np.testing.assert_allclose(loss, 0.4982, atol=5e-5)


def test_matches_numpy_per_mesh(vertices):
  expected = np.abs(vertices[..., 1]).mean(axis=-1)
  np.testing.assert_allclose(orientation_loss(jnp.asarray(vertices)), expected, rtol=1e-6)


def test_pulls_towards_the_plane_along_y_only_and_not_from_it():
  vertices = jnp.asarray([[1.0, 2.0, 3.0], [1.0, -0.5, 3.0], [1.0, 0.0, 3.0]])
  grad = jax.grad(orientation_loss)(vertices)
  np.testing.assert_allclose(
    grad, [[0.0, 1 / 3, 0.0], [0.0, -1 / 3, 0.0], [0.0, 0.0, 0.0]], rtol=1e-6
  )
