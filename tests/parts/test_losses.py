"""The losses of the part network: closed forms, NumPy twins, gradients, degenerate cases."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from umr_jax.parts.losses import (
  concentration_loss,
  equivariance_loss,
  landmark_loss,
  orthonormality_loss,
  semantic_loss,
  silhouette_loss,
  spread,
  supervision_loss,
)

B, S, P1, C = 2, 6, 4, 5


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


@pytest.fixture
def logits(rng):
  return jnp.asarray(rng.normal(size=(B, S, S, P1)), jnp.float32)


@pytest.fixture
def others(rng):
  return jnp.asarray(np.random.default_rng(7).normal(size=(B, S, S, P1)), jnp.float32)


def finite_gradient(function, *arguments):
  grads = jax.grad(lambda *a: function(*a).sum(), argnums=tuple(range(len(arguments))))(*arguments)
  assert all(np.isfinite(g).all() for g in grads)
  return grads


def centers_and_variances(probs):
  """[B, P, 2] each, by loops over float64 pixels."""
  place = (2.0 * np.arange(S) + 1.0 - S) / S
  center, variance = np.zeros((2, B, P1 - 1, 2))
  for b, p in np.ndindex(B, P1 - 1):
    density = np.asarray(probs, np.float64)[b, :, :, p + 1] + 1e-3
    density /= density.sum()
    for axis in (0, 1):
      x = place[None, :] if axis == 0 else place[:, None]
      center[b, p, axis] = (density * x).sum()
      variance[b, p, axis] = (density * (x - center[b, p, axis]) ** 2).sum()
  return center, variance


def test_spread_and_concentration_match_the_loop_they_vectorise(logits):
  probs = jax.nn.softmax(logits, axis=-1)
  center, variance = centers_and_variances(probs)
  found = spread(probs[..., 1:])
  np.testing.assert_allclose(found[0], center, atol=1e-6)
  np.testing.assert_allclose(found[1], variance, rtol=1e-5)
  np.testing.assert_allclose(concentration_loss(probs), variance.sum((1, 2)) / 6, rtol=1e-5)


def test_one_piece_costs_less_than_two_and_no_part_is_no_trouble():
  whole, halves = np.zeros((2, 1, S, S, 2), np.float32)
  whole[0, :, 2:4, 1] = 1.0
  halves[0, :, [0, 5], 1] = 1.0
  assert concentration_loss(jnp.asarray(whole))[0] < concentration_loss(jnp.asarray(halves))[0]
  finite_gradient(concentration_loss, jnp.zeros((1, S, S, 2)))


def test_equivariance_is_the_divergence_from_the_target(logits, others):
  p, q = softmax(np.asarray(others, np.float64)), softmax(np.asarray(logits, np.float64))
  expected = (p * np.log(p / q)).mean((1, 2, 3))
  np.testing.assert_allclose(equivariance_loss(logits=logits, target=others), expected, rtol=1e-4)
  np.testing.assert_allclose(equivariance_loss(logits=logits, target=logits), 0.0, atol=1e-7)


def test_equivariance_backpropagates_to_the_prediction_and_not_its_target(logits, others):
  moved, target = finite_gradient(
    lambda a, b: equivariance_loss(logits=a, target=b), logits, others
  )
  assert (moved != 0.0).any() and (target == 0.0).all()
  finite_gradient(lambda a: equivariance_loss(logits=a, target=100.0 * others), 100.0 * logits)


def test_landmarks_are_compared_from_both_sides(logits, others):
  first, _ = centers_and_variances(jax.nn.softmax(logits, axis=-1))
  second, _ = centers_and_variances(jax.nn.softmax(others, axis=-1))
  loss = landmark_loss(logits=logits, warped=others)
  np.testing.assert_allclose(loss, np.square(first - second).mean((1, 2)), rtol=1e-4)
  grads = finite_gradient(lambda a, b: landmark_loss(logits=a, warped=b), logits, others)
  assert all((g != 0.0).any() for g in grads)


def test_features_are_explained_by_the_parts_basis(logits, rng):
  probs = jax.nn.softmax(logits, axis=-1)
  features = jnp.asarray(rng.normal(size=(B, S, S, C)), jnp.float32)
  mask = jnp.asarray(rng.random((B, S, S)), jnp.float32)
  basis = jnp.asarray(rng.normal(size=(P1 - 1, C)), jnp.float32)
  expected = np.zeros(B)
  for b, i, j, c in np.ndindex(B, S, S, C):
    said = sum(probs[b, i, j, p + 1] * max(float(basis[p, c]), 0.0) for p in range(P1 - 1))
    expected[b] += (float(said) - float(features[b, i, j, c] * mask[b, i, j])) ** 2 / (S * S * C)
  loss = semantic_loss(probs=probs, features=features, mask=mask, basis=basis)
  np.testing.assert_allclose(loss, expected, rtol=1e-4)
  finite_gradient(
    lambda p, w: semantic_loss(probs=p, features=features, mask=mask, basis=w), probs, basis
  )


def test_orthogonal_rows_cost_nothing_and_equal_ones_two():
  np.testing.assert_allclose(orthonormality_loss(3.0 * jnp.eye(3, 5)), 0.0, atol=1e-6)
  np.testing.assert_allclose(orthonormality_loss(jnp.ones((2, 5))), 2.0, rtol=1e-5)
  # A row that is negative throughout is read as zeros: it misses its own length, 1.
  one = jnp.stack([jnp.eye(5)[0], -jnp.ones(5)])
  np.testing.assert_allclose(orthonormality_loss(one), 1.0, rtol=1e-5)
  finite_gradient(orthonormality_loss, one)
  finite_gradient(orthonormality_loss, jnp.zeros((2, 5)))


def test_supervision_is_the_cross_entropy_where_something_is_known(logits, others):
  targets = np.array(softmax(np.asarray(others)), np.float32)
  targets[0, :3] = 0.0  # the upper half of the first image is unknown
  logs = np.log(softmax(np.asarray(logits, np.float64)))
  entropy = -(targets * logs).sum((1, 2, 3))
  expected = entropy / np.array([S * S / 2, S * S])
  loss = supervision_loss(logits, jnp.asarray(targets))
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  (grad,) = finite_gradient(lambda x: supervision_loss(x, jnp.asarray(targets)), logits)
  assert (grad[0, :3] == 0.0).all() and (grad[0, 3:] != 0.0).any()


def test_an_image_without_a_map_is_not_supervised(logits):
  def loss(x):
    return supervision_loss(x, jnp.zeros((B, S, S, P1)))

  (grad,) = finite_gradient(loss, logits)
  assert (loss(logits) == 0.0).all() and (grad == 0.0).all()


def test_the_silhouette_is_the_cross_entropy_of_background_and_object(logits, rng):
  mask = rng.random((B, S, S)).astype(np.float32)
  empty = softmax(np.asarray(logits, np.float64))[..., 0]
  expected = -(mask * np.log(1.0 - empty) + (1.0 - mask) * np.log(empty)).mean((1, 2))
  np.testing.assert_allclose(silhouette_loss(logits, jnp.asarray(mask)), expected, rtol=1e-4)
  (grad,) = finite_gradient(lambda x: silhouette_loss(x, jnp.asarray(mask)), 1000.0 * logits)
  # Which part covers the object is not for the silhouette to say.
  (grad,) = finite_gradient(
    lambda x: silhouette_loss(x, jnp.ones((B, S, S))), jnp.zeros_like(logits)
  )
  np.testing.assert_allclose(grad[..., 1:], grad[..., 1:2] * jnp.ones((1, 1, 1, P1 - 1)))


def test_maps_of_other_sizes_are_refused(logits):
  with pytest.raises(jaxtyping.TypeCheckError, match="target"):
    equivariance_loss(logits=logits, target=logits[:, :3])
