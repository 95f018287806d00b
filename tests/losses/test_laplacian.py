"""laplacian_loss: golden and closed-form values, its loop, and collapsed meshes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.losses.laplacian import laplacian_loss


def test_matches_the_golden_values(golden_geometry, golden_topology):
  loss = laplacian_loss(jnp.asarray(golden_geometry["camera/vertices"]), golden_topology)
  np.testing.assert_allclose(loss, golden_geometry["laplacian/loss"], rtol=1e-5)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_of_the_unit_sphere_is_the_reference_value(fine_topology, transform):
  loss = transform(lambda x: laplacian_loss(x, fine_topology))(jnp.asarray(fine_topology.sphere))
  assert loss.shape == ()
  np.testing.assert_allclose(loss, 0.094866, rtol=1e-4)


def test_matches_the_loop_it_vectorises(vertices, topology):
  expected = np.zeros(len(vertices))
  for b, mesh in enumerate(vertices.astype(np.float64)):
    for i in range(len(mesh)):
      around = [j for edge in topology.edges for j in edge if i in edge and j != i]
      expected[b] += np.square(mesh[i] - mesh[around].mean(axis=0)).sum()
  np.testing.assert_allclose(laplacian_loss(jnp.asarray(vertices), topology), expected, rtol=1e-5)


def test_gradient_is_that_of_the_quadratic_form(vertices, topology):
  count = topology.num_vertices
  matrix = np.eye(count)
  for a, b in topology.edges:
    matrix[a, b] -= 1 / topology.degrees[a]
    matrix[b, a] -= 1 / topology.degrees[b]
  expected = 2 * matrix.T @ matrix @ vertices.astype(np.float64)
  grad = jax.grad(lambda x: laplacian_loss(x, topology).sum())(jnp.asarray(vertices))
  np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-5)


def test_ignores_translation_and_scales_with_the_square(vertices, topology):
  loss = laplacian_loss(jnp.asarray(vertices), topology)
  moved = laplacian_loss(jnp.asarray(3.0 * vertices + np.float32(0.5)), topology)
  np.testing.assert_allclose(moved, 9.0 * loss, rtol=1e-4)


def test_a_collapsed_mesh_costs_nothing_and_has_a_finite_gradient(topology):
  point = jnp.full((topology.num_vertices, 3), 0.7)
  value, grad = jax.value_and_grad(lambda x: laplacian_loss(x, topology))(point)
  np.testing.assert_allclose(value, 0.0, atol=1e-10)
  np.testing.assert_allclose(grad, 0.0, atol=1e-5)
