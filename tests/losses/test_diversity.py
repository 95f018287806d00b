"""camera_diversity: closed forms, double covers, one hypothesis, gradients that part."""

import jax
import jax.numpy as jnp
import numpy as np

from umr_jax.geometry import camera, quaternion
from umr_jax.losses.diversity import camera_diversity


def test_spread_hypotheses_cost_what_their_neighbours_are_near():
  turns = camera.azimuth_turns(8)
  np.testing.assert_allclose(camera_diversity(turns), np.pi - np.pi / 4, rtol=1e-5)


def test_hypotheses_that_agree_cost_most_whatever_their_sign():
  one = quaternion.normalize(jnp.array([0.3, -0.2, 0.5, 0.1]))
  rotations = jnp.stack([one, -one, one])
  np.testing.assert_allclose(camera_diversity(rotations), np.pi, atol=1e-3)


def test_a_single_hypothesis_costs_nothing():
  value, gradient = jax.value_and_grad(lambda q: camera_diversity(q).sum())(jnp.ones((2, 1, 4)))
  assert value == 0.0
  assert not np.asarray(gradient).any()


def test_only_the_nearest_other_counts():
  degrees = jnp.deg2rad(jnp.array([0.0, 20.0, 150.0]))
  axis = jnp.broadcast_to(jnp.array([0.0, 0.0, 1.0]), (3, 3))
  rotations = quaternion.from_axis_angle(axis, degrees)
  expected = np.pi - np.deg2rad(np.mean([20.0, 20.0, 130.0]))
  np.testing.assert_allclose(camera_diversity(rotations), expected, rtol=1e-5)


def test_descent_parts_near_hypotheses(rng):
  start = np.array([1.0, 0.0, 0.0, 0.0]) + 0.1 * rng.normal(size=(2, 5, 4))
  q = jnp.asarray(start, jnp.float32)

  def cost(q):
    return camera_diversity(quaternion.normalize(q)).sum()

  before = cost(q)
  for _ in range(50):
    q = q - 0.05 * jax.grad(cost)(q)
  assert cost(q) < before - 0.5
