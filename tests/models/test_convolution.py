"""Convolution and pooling: their NumPy twins, tiny maps and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import numpy_net
from umr_jax.models.convolution import convolve, depthwise_convolve, max_pool


@pytest.mark.parametrize("size", [2, 3, 4, 9])
@pytest.mark.parametrize(
  ("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (4, 2, 1), (1, 2, 0)]
)
def test_convolution_matches_its_twin_on_tiny_and_larger_maps(rng, size, kernel, stride, padding):
  x = rng.normal(size=(2, size, size, 5)).astype(np.float32)
  weight = rng.normal(size=(kernel, kernel, 5, 6)).astype(np.float32)
  result = convolve(jnp.asarray(x), jnp.asarray(weight), stride=stride, padding=padding)
  for image, found in zip(x, result, strict=True):
    expected = numpy_net.convolve(
      image.transpose(2, 0, 1).astype(np.float64), weight.transpose(3, 2, 0, 1), stride, padding
    )
    np.testing.assert_allclose(found, expected.transpose(1, 2, 0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("size", "stride"), [(2, 1), (4, 2), (7, 2)])
def test_gradients_on_tiny_maps_are_those_of_a_convolution(rng, size, stride):
  x, weight = (
    jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in [(1, size, size, 3), (3, 3, 3, 2)]
  )

  def reference(x, weight):
    return jax.lax.conv_general_dilated(
      x, weight, (stride, stride), [(1, 1)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )

  def total(function, x, weight):
    return jnp.sum(jnp.sin(function(x, weight)))

  expected = jax.grad(total, (1, 2))(reference, x, weight)
  found = jax.grad(total, (1, 2))(lambda *a: convolve(*a, stride=stride, padding=1), x, weight)
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
def test_a_depthwise_convolution_equals_xlas_with_groups(rng, size, stride):
  x = jnp.asarray(rng.normal(size=(2, 9, 12, 4)), jnp.float32)
  kernel = jnp.asarray(rng.normal(size=(size, size, 4)), jnp.float32)
  expected = jax.lax.conv_general_dilated(
    x,
    kernel[:, :, None],
    (stride, stride),
    "SAME",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=4,
  )
  found = depthwise_convolve(x, kernel, stride=stride)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [5, 6])
@pytest.mark.parametrize("padding", [0, 1])
def test_max_pool_matches_its_twin(rng, size, padding):
  x = np.abs(rng.normal(size=(2, size, size + 2, 3))).astype(np.float32)
  result = max_pool(jnp.asarray(x), padding=padding)
  for image, found in zip(x, result, strict=True):
    expected = numpy_net.max_pool(image.transpose(2, 0, 1), padding)
    np.testing.assert_array_equal(found, expected.transpose(1, 2, 0))
