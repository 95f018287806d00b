"""correction_loss: closed forms, and a gradient that pulls every departure back."""

import jax
import jax.numpy as jnp
import numpy as np

from umr_jax.losses.flow_correction import correction_loss


def test_a_constant_departure_costs_its_squared_length():
  correction = (
    jnp.tile(jnp.asarray([0.3, -0.4]), (2, 4, 8, 1)) * jnp.asarray([1.0, 2.0])[:, None, None, None]
  )
  np.testing.assert_allclose(correction_loss(correction), [0.25, 1.0], rtol=1e-6)


def test_its_gradient_points_along_the_departure(rng):
  correction = jnp.asarray(rng.normal(size=(1, 4, 8, 2)), jnp.float32)
  grad = jax.grad(lambda c: correction_loss(c)[0])(correction)
  np.testing.assert_allclose(grad, 2.0 * correction / 32, rtol=1e-5)


def test_no_departure_costs_nothing():
  value, grad = jax.value_and_grad(lambda c: correction_loss(c).sum())(jnp.zeros((3, 4, 8, 2)))
  assert value == 0.0 and (np.asarray(grad) == 0.0).all()
