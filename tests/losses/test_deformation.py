"""deformation_loss: golden value, closed form, and the zero offset at which training starts."""

import jax
import jax.numpy as jnp
import numpy as np

from umr_jax.losses.deformation import deformation_loss, shape_variance_loss


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


def test_deviation_does_not_see_what_all_shapes_share(rng):
  offsets = jnp.asarray(rng.normal(size=(4, 9, 3)), jnp.float32)
  shared = jnp.asarray(rng.normal(size=(1, 9, 3)), jnp.float32)
  np.testing.assert_allclose(
    shape_variance_loss(offsets + shared), shape_variance_loss(offsets), rtol=1e-4
  )
  same = jnp.repeat(shared, 4, axis=0)
  value, grad = jax.value_and_grad(lambda o: shape_variance_loss(o).sum())(same)
  np.testing.assert_allclose(value, 0.0, atol=1e-5)
  assert np.isfinite(grad).all()


def test_deviation_is_the_distance_from_the_mean():
  offsets = jnp.stack([jnp.full((5, 3), 0.2), jnp.full((5, 3), -0.2)])
  np.testing.assert_allclose(shape_variance_loss(offsets), [0.2 * 3**0.5] * 2, rtol=1e-5)
