"""safe_norm: the exact norm, and a gradient at the origin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.losses.norm import safe_norm


def test_is_the_norm(rng):
  vectors = rng.normal(size=(4, 5, 3)).astype(np.float32)
  np.testing.assert_allclose(
    safe_norm(jnp.asarray(vectors)), np.linalg.norm(vectors, axis=-1), rtol=1e-6
  )


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-18, 1e-12, 1.0, 1e12])
def test_gradient_is_the_direction_or_zero_at_the_origin(size):
  grad = jax.grad(safe_norm)(jnp.asarray([0.6, -0.8, 0.0]) * size)
  assert np.isfinite(grad).all()
  # Squares below the smallest float round to zero, and then so does the gradient.
  expected = [0.6, -0.8, 0.0] if size >= 1e-18 else [0.0, 0.0, 0.0]
  np.testing.assert_allclose(grad, expected, rtol=1e-5)
