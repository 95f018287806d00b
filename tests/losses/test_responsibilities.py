"""Responsibilities of camera hypotheses, and how probabilities learn them."""

import jax
import jax.numpy as jnp
import numpy as np

from umr_jax.losses.entropy import camera_entropy, posterior_loss, responsibilities


def respond(values, logits=None, *, temperature, prior=0.0):
  values = jnp.asarray(values, jnp.float32)
  logits = jnp.zeros_like(values) if logits is None else jnp.asarray(logits, jnp.float32)
  return responsibilities(values, logits, temperature=temperature, prior=prior)


def test_a_temperature_more_of_loss_is_e_times_less_responsible(rng):
  values = rng.uniform(size=(4, 3))
  expected = np.exp(-values / 0.2)
  expected /= expected.sum(-1, keepdims=True)
  np.testing.assert_allclose(respond(values, temperature=0.2), expected, rtol=1e-4)
  # Without a prior what the network expects does not count.
  logits = rng.normal(size=(4, 3))
  np.testing.assert_allclose(respond(values, logits, temperature=0.2), expected, rtol=1e-4)


def test_with_a_prior_they_are_the_posterior_of_a_mixture(rng):
  values, probs = rng.uniform(size=(4, 3)), rng.dirichlet(np.ones(3), size=4)
  expected = probs * np.exp(-values / 0.2)
  expected /= expected.sum(-1, keepdims=True)
  got = respond(values, np.log(probs) + 7.0, temperature=0.2, prior=1.0)
  np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_responsibilities_are_a_target_and_survive_far_losses():
  values = jnp.array([0.0, 1.0])
  for argument in (0, 1):
    grad = jax.grad(
      lambda *v: responsibilities(*v, temperature=0.1, prior=1.0)[0], argnums=argument
    )(values, values)
    np.testing.assert_array_equal(grad, [0.0, 0.0])
  np.testing.assert_array_equal(respond(values, temperature=1e-4), [1.0, 0.0])


def test_the_posterior_loss_is_least_where_probabilities_equal_responsibilities(rng):
  target = jnp.asarray(rng.dirichlet(np.ones(5), size=3), jnp.float32)
  logits = jnp.log(target)
  np.testing.assert_allclose(posterior_loss(logits, target), camera_entropy(logits), rtol=1e-5)
  grad = jax.grad(lambda x: posterior_loss(x, target).sum())
  np.testing.assert_allclose(grad(logits), 0.0, atol=1e-6)
  uniform = jnp.zeros((3, 5))
  np.testing.assert_allclose(grad(uniform), 0.2 - target, atol=1e-6)
