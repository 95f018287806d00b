"""Quaternion algebra: group laws, batching, an independent reference, degenerate gradients."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from umr_jax.geometry import quaternion

# The last is a batch of several dimensions whose trailing one is 4: where a wrong axis would hide.
SHAPES = [(), (5,), (3, 4), (4, 4)]
IDENTITY = np.array([1.0, 0.0, 0.0, 0.0], np.float32)


def _unit(rng, shape=()):
  q = rng.normal(size=(*shape, 4))
  return jnp.asarray(q / np.linalg.norm(q, axis=-1, keepdims=True), jnp.float32)


def _scipy(q):
  return Rotation.from_quat(np.asarray(q, np.float64).reshape(-1, 4), scalar_first=True)


def _multiply_twin(a, b):
  """The product from its definition: i i = j j = k k = i j k = -1."""
  table = {(i, i): (0, -1.0) for i in (1, 2, 3)} | {(0, 0): (0, 1.0)}
  for i in (1, 2, 3):
    table[0, i] = table[i, 0] = (i, 1.0)
    j, k = i % 3 + 1, (i + 1) % 3 + 1
    table[i, j], table[j, i] = (k, 1.0), (k, -1.0)
  product = np.zeros(4)
  for (i, j), (k, sign) in table.items():
    product[k] += sign * a[i] * b[j]
  return product


@pytest.mark.parametrize("shape", SHAPES)
def test_multiply_matches_its_definition_on_every_batch(rng, shape):
  a, b = _unit(rng, shape), _unit(rng, shape)
  product = np.asarray(quaternion.multiply(a, b))
  assert product.shape == (*shape, 4)
  for index in np.ndindex(shape):
    expected = _multiply_twin(np.asarray(a)[index], np.asarray(b)[index])
    np.testing.assert_allclose(product[index], expected, atol=1e-6)


def test_the_identity_and_the_inverse(rng):
  q = _unit(rng, (6,))
  identity = jnp.broadcast_to(IDENTITY, (6, 4))
  np.testing.assert_allclose(quaternion.multiply(q, identity), q, atol=1e-6)
  np.testing.assert_allclose(quaternion.multiply(identity, q), q, atol=1e-6)
  np.testing.assert_allclose(
    quaternion.multiply(q, quaternion.conjugate(q)), np.tile(IDENTITY, (6, 1)), atol=1e-6
  )
  points = jnp.asarray(rng.normal(size=(6, 8, 3)), jnp.float32)
  back = quaternion.rotate(quaternion.rotate(points, q), quaternion.conjugate(q))
  np.testing.assert_allclose(back, points, atol=2e-6)


def test_multiplication_is_associative(rng):
  a, b, c = _unit(rng, (9,)), _unit(rng, (9,)), _unit(rng, (9,))
  left = quaternion.multiply(quaternion.multiply(a, b), c)
  right = quaternion.multiply(a, quaternion.multiply(b, c))
  np.testing.assert_allclose(left, right, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_rotating_by_a_product_is_rotating_twice(rng, shape):
  a, b = _unit(rng, shape), _unit(rng, shape)
  points = jnp.asarray(rng.normal(size=(*shape, 8, 3)), jnp.float32)
  once = quaternion.rotate(points, quaternion.multiply(a, b))
  twice = quaternion.rotate(quaternion.rotate(points, b), a)
  np.testing.assert_allclose(once, twice, atol=4e-6)
  matrix = quaternion.to_matrix(quaternion.multiply(a, b))
  product = np.asarray(quaternion.to_matrix(a)) @ np.asarray(quaternion.to_matrix(b))
  np.testing.assert_allclose(matrix, product, atol=2e-6)


def test_both_signs_are_one_rotation(rng):
  q = _unit(rng, (7,))
  np.testing.assert_array_equal(quaternion.to_matrix(q), quaternion.to_matrix(-q))


@pytest.mark.parametrize("shape", SHAPES)
def test_rotate_is_q_x_conjugate_q(rng, shape):
  q = _unit(rng, shape)
  points = rng.normal(size=(*shape, 6, 3)).astype(np.float32)
  rotated = np.asarray(quaternion.rotate(jnp.asarray(points), q))
  for index in np.ndindex(*shape, 6):
    one = np.asarray(q, np.float64)[index[:-1]]
    pure = np.concatenate([[0.0], points[index]])
    sandwich = _multiply_twin(_multiply_twin(one, pure), one * np.array([1.0, -1.0, -1.0, -1.0]))
    np.testing.assert_allclose(rotated[index], sandwich[1:], atol=2e-6)


def test_matrices_agree_with_scipy(rng):
  q = _unit(rng, (20,))
  np.testing.assert_allclose(quaternion.to_matrix(q), _scipy(q).as_matrix(), atol=1e-6)


def test_from_axis_angle_agrees_with_scipy(rng):
  axis = rng.normal(size=(3, 4, 3))
  axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
  angle = rng.uniform(-4.0, 4.0, size=(3, 4))
  q = quaternion.from_axis_angle(jnp.asarray(axis, jnp.float32), jnp.asarray(angle, jnp.float32))
  expected = Rotation.from_rotvec((axis * angle[..., None]).reshape(-1, 3)).as_matrix()
  np.testing.assert_allclose(quaternion.to_matrix(q).reshape(-1, 3, 3), expected, atol=2e-6)


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1.0, 1e12, 1e30])
def test_normalize_works_at_every_magnitude(rng, scale):
  q = rng.normal(size=(5, 4))
  scaled = jnp.asarray(q * scale, jnp.float32)
  expected = q / np.linalg.norm(q, axis=-1, keepdims=True)
  np.testing.assert_allclose(quaternion.normalize(scaled), expected, atol=1e-6)
  grad = jax.grad(lambda x: quaternion.normalize(x)[..., 0].sum())(scaled)
  # d(w / n) / dq = (e_w - w q / n^2) / n.
  derivative = (np.eye(4)[0] - expected[:, :1] * expected) / np.linalg.norm(q, axis=-1)[:, None]
  np.testing.assert_allclose(np.asarray(grad, np.float64) * scale, derivative, atol=1e-5)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_normalizing_zero_gives_the_identity_and_no_gradient(transform):
  q = jnp.zeros((2, 4))
  np.testing.assert_array_equal(transform(quaternion.normalize)(q), np.tile(IDENTITY, (2, 1)))
  grad = transform(jax.grad(lambda x: jnp.sum(quaternion.normalize(x) * 3.0)))(q)
  np.testing.assert_array_equal(grad, np.zeros((2, 4)))


def test_a_batch_of_quaternions_for_one_set_of_points_is_refused():
  with pytest.raises(jaxtyping.TypeCheckError):
    quaternion.rotate(jnp.zeros((8, 3)), jnp.zeros((2, 4)))
