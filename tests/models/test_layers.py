"""The layers: normalizations and initializers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.models.initialize import draw_variables
from umr_jax.models.layers import (
  BatchNorm,
  GroupNorm,
  constant,
  map_norm,
  normal,
  uniform,
)


def test_batch_norm_normalizes_and_remembers_the_unbiased_variance(rng):
  x = jnp.asarray(rng.normal(3.0, 2.0, size=(6, 4, 4, 5)), jnp.float32)
  layer = BatchNorm()
  variables = layer.init(jax.random.key(0), x, train=True)
  y, updates = layer.apply(variables, x, train=True, mutable=["batch_stats"])
  np.testing.assert_allclose(y.mean((0, 1, 2)), np.zeros(5), atol=1e-5)
  np.testing.assert_allclose(y.std((0, 1, 2)), np.ones(5), rtol=1e-4)
  stats = updates["batch_stats"]
  np.testing.assert_allclose(stats["mean"], 0.1 * x.mean((0, 1, 2)), rtol=1e-5)
  expected = 0.9 + 0.1 * np.asarray(x, np.float64).var((0, 1, 2), ddof=1)
  np.testing.assert_allclose(stats["var"], expected, rtol=1e-5)


def test_batch_norm_of_a_channel_far_from_zero_has_its_variance(rng):
  x = rng.normal(1000.0, 0.1, size=(16, 12, 12, 3)).astype(np.float32)
  layer = BatchNorm()
  variables = layer.init(jax.random.key(0), jnp.asarray(x), train=True)
  y, updates = layer.apply(variables, jnp.asarray(x), train=True, mutable=["batch_stats"])
  exact = x.astype(np.float64)
  variance = exact.var((0, 1, 2), ddof=1)
  stats = updates["batch_stats"]
  # float32 resolves 1000 to 6e-5.
  np.testing.assert_allclose((stats["var"] - 0.9) / 0.1, variance, atol=1e-5)
  expected = (exact - exact.mean((0, 1, 2))) / np.sqrt(exact.var((0, 1, 2)) + 1e-5)
  np.testing.assert_allclose(y, expected, atol=5e-3)
  # With its running statistics, the same: it is the subtraction that loses digits.
  running = {"mean": exact.mean((0, 1, 2)).astype(np.float32), "var": exact.var((0, 1, 2))}
  running = {name: jnp.asarray(value, jnp.float32) for name, value in running.items()}
  y = layer.apply({**variables, "batch_stats": running}, jnp.asarray(x), train=False)
  np.testing.assert_allclose(y, expected, atol=5e-3)


def test_group_norm_of_groups_far_from_zero_has_their_variance(rng):
  x = rng.normal(1000.0, 0.1, size=(2, 12, 12, 32)).astype(np.float32)
  layer = GroupNorm()
  y = layer.apply(layer.init(jax.random.key(0), jnp.asarray(x), train=True), x, train=True)
  groups = x.astype(np.float64).reshape(2, 144, 2, 16)
  mean = groups.mean((1, 3), keepdims=True)
  expected = (groups - mean) / np.sqrt(groups.var((1, 3), keepdims=True) + 1e-5)
  np.testing.assert_allclose(y, expected.reshape(x.shape), atol=5e-3)


@pytest.mark.parametrize(
  ("channels", "groups"), [(8, 1), (16, 1), (24, 1), (33, 1), (50, 1), (64, 4), (100, 2), (512, 32)]
)
def test_group_norm_of_any_number_of_channels_has_equal_groups(rng, channels, groups):
  """Sixteen channels a group where they divide so, otherwise the fewest groups that are equal."""
  x = jnp.asarray(rng.normal(size=(2, 3, 3, channels)), jnp.float32)
  layer = GroupNorm()
  y = layer.apply(layer.init(jax.random.key(0), x, train=True), x, train=True)
  split = np.asarray(x, np.float64).reshape(2, 9, groups, channels // groups)
  mean, var = split.mean((1, 3), keepdims=True), split.var((1, 3), keepdims=True)
  np.testing.assert_allclose(y, ((split - mean) / np.sqrt(var + 1e-5)).reshape(x.shape), atol=1e-4)


def test_evaluation_batch_norm_treats_every_image_alone(rng):
  x = jnp.asarray(rng.normal(size=(3, 2, 5)), jnp.float32)
  layer = BatchNorm(channel_axes=2)
  variables = layer.init(jax.random.key(0), x, train=True)
  whole = layer.apply(variables, x, train=False)
  np.testing.assert_allclose(whole[1:2], layer.apply(variables, x[1:2], train=False))


def test_batch_norm_of_one_constant_row_has_finite_gradients():
  x = jnp.full((1, 4), 2.0)
  layer = BatchNorm()
  variables = layer.init(jax.random.key(0), x, train=True)

  def loss(x):
    return jnp.sum(layer.apply(variables, x, train=True, mutable=["batch_stats"])[0] ** 2)

  assert np.isfinite(jax.grad(loss)(x)).all()


@pytest.mark.parametrize(
  ("initializer", "deviation"), [(normal(0.3), 0.3), (uniform(0.6), 0.6 / np.sqrt(3.0))]
)
def test_initializers_have_their_deviation_in_jax_and_on_the_host(initializer, deviation):
  for sample in (
    initializer(jax.random.key(0), (100, 100)),
    initializer.sample(np.random.default_rng(0), (100, 100)),
  ):
    assert sample.dtype == np.float32
    np.testing.assert_allclose(np.std(sample), deviation, rtol=0.03)
    np.testing.assert_allclose(np.mean(sample), 0.0, atol=0.03 * deviation * 3)


def test_a_constant_initializer_repeats_its_numbers():
  for sample in (
    constant(1.0, 2.0)(jax.random.key(0), (3, 2)),
    constant(1.0, 2.0).sample(np.random.default_rng(0), (3, 2)),
  ):
    np.testing.assert_array_equal(sample, [[1.0, 2.0]] * 3)


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
