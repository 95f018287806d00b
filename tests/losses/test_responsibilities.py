"""Responsibilities of camera hypotheses, and how probabilities learn them."""

import jax
import jax.numpy as jnp
import numpy as np

from umr_jax.losses.entropy import camera_entropy, posterior_loss, responsibilities


def test_a_temperature_more_of_loss_is_e_times_less_responsible(rng):
  values = rng.uniform(size=(4, 3))
  expected = np.exp(-values / 0.2)
  expected /= expected.sum(-1, keepdims=True)
  got = responsibilities(jnp.asarray(values, jnp.float32), 0.2)
  np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_responsibilities_are_a_target_and_survive_far_losses():
  values = jnp.array([0.0, 1.0])
  grad = jax.grad(lambda v: responsibilities(v, 0.1)[0])(values)
  np.testing.assert_array_equal(grad, [0.0, 0.0])
  np.testing.assert_array_equal(responsibilities(values, 1e-4), [1.0, 0.0])


def test_the_posterior_loss_is_least_where_probabilities_equal_responsibilities(rng):
  target = jnp.asarray(rng.dirichlet(np.ones(5), size=3), jnp.float32)
  logits = jnp.log(target)
  np.testing.assert_allclose(posterior_loss(logits, target), camera_entropy(logits), rtol=1e-5)
  grad = jax.grad(lambda x: posterior_loss(x, target).sum())
  np.testing.assert_allclose(grad(logits), 0.0, atol=1e-6)
  uniform = jnp.zeros((3, 5))
  np.testing.assert_allclose(grad(uniform), 0.2 - target, atol=1e-6)
