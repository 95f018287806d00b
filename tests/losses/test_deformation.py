"""deformation_loss: golden value, closed form, and the zero offset at which training starts."""

import jax
import jax.numpy as jnp
import numpy as np

from umr_jax.losses.deformation import deformation_loss


def test_matches_the_golden_value(golden_geometry):
  loss = deformation_loss(jnp.asarray(golden_geometry["deform/delta_v"]))
  np.testing.assert_allclose(loss.mean(), golden_geometry["deform/loss"], rtol=1e-5)


def test_constant_offset_costs_its_length():
  offsets = jnp.tile(jnp.asarray([0.3, 0.0, -0.4]), (2, 7, 1))
  np.testing.assert_allclose(deformation_loss(offsets), [0.5, 0.5], rtol=1e-6)


def test_zero_offsets_cost_nothing_and_have_zero_gradient():
  value, grad = jax.value_and_grad(deformation_loss)(jnp.zeros((7, 3)))
  assert value == 0.0
  assert (np.asarray(grad) == 0.0).all()


def test_gradient_pulls_every_moved_vertex_equally(rng):
  offsets = rng.normal(size=(9, 3)).astype(np.float32)
  offsets[4] = 0.0
  grad = np.linalg.norm(jax.grad(deformation_loss)(jnp.asarray(offsets)), axis=-1)
  np.testing.assert_allclose(np.delete(grad, 4), 1 / 9, rtol=1e-5)
  assert grad[4] == 0.0
