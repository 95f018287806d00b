"""The camera terms: entropy, responsibilities, the posterior, and target cameras."""

import jax
import jax.numpy as jnp
import numpy as np

from umr_jax.losses.camera import (
  camera_entropy,
  camera_posterior_loss,
  responsibilities,
  sample_hypothesis,
  target_camera_loss,
)


def test_entropy_uniform_and_certain_distributions_are_the_ends():
  logits = jnp.asarray([[2.0] * 8, [50.0] + [0.0] * 7])
  np.testing.assert_allclose(camera_entropy(logits), [np.log(8), 0.0], atol=1e-6)


def test_entropy_matches_the_definition(rng):
  logits = rng.normal(size=(2, 3, 5))
  probs = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
  expected = -(probs * np.log(probs)).sum(axis=-1)
  result = camera_entropy(jnp.asarray(logits, jnp.float32))
  np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_entropy_one_hypothesis_has_no_entropy_and_no_gradient():
  value, grad = jax.value_and_grad(lambda x: camera_entropy(x).sum())(jnp.asarray([[3.0], [-9.0]]))
  assert value == 0.0
  assert (np.asarray(grad) == 0.0).all()


def test_entropy_gradient_is_finite_where_probabilities_round_to_zero():
  logits = jnp.asarray([[0.0, 1e3, -1e4], [1e30, 0.0, 0.0]])
  value, grad = jax.value_and_grad(lambda x: camera_entropy(x).sum())(logits)
  assert np.isfinite(value)
  assert np.isfinite(grad).all()


def respond(values, logits=None, *, temperature):
  values = jnp.asarray(values, jnp.float32)
  logits = jnp.zeros_like(values) if logits is None else jnp.asarray(logits, jnp.float32)
  return responsibilities(values, logits, temperature=temperature)


def test_a_temperature_more_of_loss_is_e_times_less_responsible(rng):
  values = rng.uniform(size=(4, 3))
  expected = np.exp(-values / 0.2)
  expected /= expected.sum(-1, keepdims=True)
  np.testing.assert_allclose(respond(values, temperature=0.2), expected, rtol=1e-4)


def test_they_are_the_posterior_of_a_mixture(rng):
  values, probs = rng.uniform(size=(4, 3)), rng.dirichlet(np.ones(3), size=4)
  expected = probs * np.exp(-values / 0.2)
  expected /= expected.sum(-1, keepdims=True)
  got = respond(values, np.log(probs) + 7.0, temperature=0.2)
  np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_responsibilities_are_a_target_and_survive_far_losses():
  values = jnp.array([0.0, 1.0])
  for argument in (0, 1):
    grad = jax.grad(lambda *v: responsibilities(*v, temperature=0.1)[0], argnums=argument)(
      values, values
    )
    np.testing.assert_array_equal(grad, [0.0, 0.0])
  np.testing.assert_array_equal(respond(values, temperature=1e-4), [1.0, 0.0])


def test_the_posterior_loss_is_least_where_probabilities_equal_responsibilities(rng):
  target = jnp.asarray(rng.dirichlet(np.ones(5), size=3), jnp.float32)
  logits = jnp.log(target)
  np.testing.assert_allclose(
    camera_posterior_loss(logits, target), camera_entropy(logits), rtol=1e-5
  )
  grad = jax.grad(lambda x: camera_posterior_loss(x, target).sum())
  np.testing.assert_allclose(grad(logits), 0.0, atol=1e-6)
  uniform = jnp.zeros((3, 5))
  np.testing.assert_allclose(grad(uniform), 0.2 - target, atol=1e-6)


TARGET = jnp.array([[0.8, 0.1, -0.2, 1.0, 0.0, 0.0, 0.0]])


def target_loss(**changes):
  camera = TARGET.at[:, 0].set(changes.get("scale", 0.8))
  camera = camera.at[:, 1:3].set(jnp.asarray(changes.get("place", [0.1, -0.2])))
  half = jnp.deg2rad(changes.get("degrees", 0.0)) / 2
  camera = camera.at[:, 3].set(changes.get("sign", 1.0) * jnp.cos(half))
  camera = camera.at[:, 5].set(changes.get("sign", 1.0) * jnp.sin(half))
  return target_camera_loss(cameras=camera, target=TARGET)[0]


def test_target_camera_each_difference_has_its_closed_form():
  np.testing.assert_allclose(target_loss(), 0.0, atol=1e-6)
  np.testing.assert_allclose(target_loss(degrees=60.0), np.sin(np.pi / 6) ** 2, rtol=1e-5)
  np.testing.assert_allclose(
    target_loss(degrees=60.0, sign=-1.0), target_loss(degrees=60.0), rtol=1e-6
  )
  np.testing.assert_allclose(target_loss(scale=0.4), 0.25 * 0.25, rtol=1e-5)
  np.testing.assert_allclose(target_loss(place=[0.4, 0.2]), 0.25, rtol=1e-5)


def test_target_camera_a_mesh_without_size_is_told_to_grow():
  slope = jax.grad(lambda scale: target_loss(scale=scale))(1e-12)
  assert np.isfinite(slope) and slope < 0.0


def test_hypotheses_are_sampled_with_their_probabilities_under_each_images_own_key():
  logits = jnp.log(jnp.array([[0.7, 0.2, 0.1]]))
  index = jnp.arange(3000)
  sampled = sample_hypothesis(jnp.broadcast_to(logits, (3000, 3)), index, jax.random.key(1))
  share = np.bincount(np.asarray(sampled), minlength=3) / 3000
  np.testing.assert_allclose(share, [0.7, 0.2, 0.1], atol=0.03)
  # The sample belongs to the image, not to its place in a batch.
  again = sample_hypothesis(jnp.broadcast_to(logits, (10, 3)), index[500:510], jax.random.key(1))
  np.testing.assert_array_equal(again, sampled[500:510])
