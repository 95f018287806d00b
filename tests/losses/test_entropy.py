"""camera_entropy: its ends, its loop, and logits far apart."""

import jax
import jax.numpy as jnp
import numpy as np

from umr_jax.losses.entropy import camera_entropy


def test_uniform_and_certain_distributions_are_the_ends():
  logits = jnp.asarray([[2.0] * 8, [50.0] + [0.0] * 7])
  np.testing.assert_allclose(camera_entropy(logits), [np.log(8), 0.0], atol=1e-6)


def test_matches_the_definition(rng):
  logits = rng.normal(size=(2, 3, 5))
  probs = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
  expected = -(probs * np.log(probs)).sum(axis=-1)
  result = camera_entropy(jnp.asarray(logits, jnp.float32))
  np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_one_hypothesis_has_no_entropy_and_no_gradient():
  value, grad = jax.value_and_grad(lambda x: camera_entropy(x).sum())(jnp.asarray([[3.0], [-9.0]]))
  assert value == 0.0
  assert (np.asarray(grad) == 0.0).all()


def test_gradient_is_finite_where_probabilities_round_to_zero():
  logits = jnp.asarray([[0.0, 1e3, -1e4], [1e30, 0.0, 0.0]])
  value, grad = jax.value_and_grad(lambda x: camera_entropy(x).sum())(logits)
  assert np.isfinite(value)
  assert np.isfinite(grad).all()
