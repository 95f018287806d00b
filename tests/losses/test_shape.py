"""The regularisers: golden and reference values, the loops they vectorise, collapse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.geometry.topology import build_topology
from umr_jax.losses.shape import (
  deformation_loss,
  edge_loss,
  flatten_loss,
  laplacian_loss,
  orientation_loss,
  safe_norm,
  shape_variance_loss,
)


def test_laplacian_matches_the_golden_values(golden_geometry, golden_topology):
  loss = laplacian_loss(jnp.asarray(golden_geometry["camera/vertices"]), golden_topology)
  np.testing.assert_allclose(loss, golden_geometry["laplacian/loss"], rtol=1e-5)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_laplacian_of_the_unit_sphere_is_the_reference_value(fine_topology, transform):
  loss = transform(lambda x: laplacian_loss(x, fine_topology))(jnp.asarray(fine_topology.sphere))
  assert loss.shape == ()
  np.testing.assert_allclose(loss, 0.094866, rtol=1e-4)


def test_laplacian_matches_the_loop_it_vectorises(vertices, topology):
  expected = np.zeros(len(vertices))
  for b, mesh in enumerate(vertices.astype(np.float64)):
    for i in range(len(mesh)):
      around = [j for edge in topology.edges for j in edge if i in edge and j != i]
      expected[b] += np.square(mesh[i] - mesh[around].mean(axis=0)).sum()
  np.testing.assert_allclose(laplacian_loss(jnp.asarray(vertices), topology), expected, rtol=1e-5)


def test_laplacian_gradient_is_that_of_the_quadratic_form(vertices, topology):
  count = topology.num_vertices
  matrix = np.eye(count)
  for a, b in topology.edges:
    matrix[a, b] -= 1 / topology.degrees[a]
    matrix[b, a] -= 1 / topology.degrees[b]
  expected = 2 * matrix.T @ matrix @ vertices.astype(np.float64)
  grad = jax.grad(lambda x: laplacian_loss(x, topology).sum())(jnp.asarray(vertices))
  np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-5)


def test_laplacian_ignores_translation_and_scales_with_the_square(vertices, topology):
  loss = laplacian_loss(jnp.asarray(vertices), topology)
  moved = laplacian_loss(jnp.asarray(3.0 * vertices + np.float32(0.5)), topology)
  np.testing.assert_allclose(moved, 9.0 * loss, rtol=1e-4)


def test_laplacian_a_collapsed_mesh_costs_nothing_and_has_a_finite_gradient(topology):
  point = jnp.full((topology.num_vertices, 3), 0.7)
  value, grad = jax.value_and_grad(lambda x: laplacian_loss(x, topology))(point)
  np.testing.assert_allclose(value, 0.0, atol=1e-10)
  np.testing.assert_allclose(grad, 0.0, atol=1e-5)


def hinge(degrees):
  """One edge along x between two unit triangles that stand at an angle (180: flat)."""
  angle = np.deg2rad(degrees)
  side = [0.5, np.cos(angle), np.sin(angle)]
  return jnp.asarray([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, 1.0, 0.0], side], jnp.float32)


@pytest.fixture
def one_edge(topology):
  return topology.replace(face_pairs=np.array([[0, 1, 2, 3]], np.int32))


def test_flatten_matches_the_golden_values(golden_geometry, golden_topology):
  loss = flatten_loss(jnp.asarray(golden_geometry["camera/vertices"]), golden_topology)
  np.testing.assert_allclose(loss, golden_geometry["flatten/loss"], rtol=2e-5)


def test_flatten_of_the_unit_sphere_is_the_reference_value(fine_topology):
  loss = flatten_loss(jnp.asarray(fine_topology.sphere), fine_topology)
  np.testing.assert_allclose(loss, 0.0312, atol=5e-5)


@pytest.mark.parametrize("degrees", [180.0, 120.0, 90.0, 30.0, 0.0])
def test_flatten_a_hinge_costs_what_its_angle_says(one_edge, degrees):
  # The cosine between the perpendiculars is that of the angle.
  expected = (1.0 + np.cos(np.deg2rad(degrees))) ** 2
  np.testing.assert_allclose(flatten_loss(hinge(degrees), one_edge), expected, atol=1e-4)


def test_flatten_matches_the_loop_it_vectorises(vertices, topology):
  expected = np.zeros(len(vertices))
  for b, mesh in enumerate(vertices.astype(np.float64)):
    for i, j, *opposite in topology.face_pairs:
      along = (mesh[j] - mesh[i]) / np.linalg.norm(mesh[j] - mesh[i])
      across = [mesh[m] - mesh[i] - along * (along @ (mesh[m] - mesh[i])) for m in opposite]
      cosine = across[0] @ across[1] / np.prod(np.linalg.norm(across, axis=-1))
      expected[b] += (1 + cosine) ** 2
  # The epsilons, which the loop lacks, move it by 1e-4 at most.
  np.testing.assert_allclose(flatten_loss(jnp.asarray(vertices), topology), expected, rtol=3e-4)


def test_flatten_gradient_matches_finite_differences_in_direction(vertices, topology, rng):
  direction = rng.normal(size=vertices.shape).astype(np.float32)

  @jax.jit
  def loss(t):
    return flatten_loss(jnp.asarray(vertices) + t * jnp.asarray(direction), topology).sum()

  slope = (loss(jnp.float32(2e-3)) - loss(jnp.float32(-2e-3))) / 4e-3
  np.testing.assert_allclose(jax.grad(loss)(jnp.float32(0.0)), slope, rtol=5e-3)


@pytest.mark.parametrize(
  "damage",
  [
    lambda x: x.at[:].set(0.0),
    lambda x: x.at[1].set(x[0]),
    lambda x: x.at[2].set(x[0]),
    lambda x: x.at[2].set(0.5 * (x[0] + x[1])),
    lambda x: x.at[3].set(x[2]),
    lambda x: x * 1e-12,
    lambda x: x * 1e6,
  ],
  ids=["point", "no edge", "corner on corner", "sliver", "folded", "tiny", "huge"],
)
def test_flatten_faces_without_area_have_finite_values_and_gradients(one_edge, damage):
  value, grad = jax.jit(jax.value_and_grad(lambda x: flatten_loss(x, one_edge)))(
    damage(hinge(150.0))
  )
  assert np.isfinite(value)
  assert np.isfinite(grad).all()


def test_edge_the_icosahedron_has_equal_edges():
  topology = build_topology(0, texels_per_side=1, symmetric_texture=False)
  np.testing.assert_allclose(edge_loss(jnp.asarray(topology.sphere), topology), 0.0, atol=1e-10)


def test_edge_matches_the_loop_it_vectorises(vertices, topology):
  lengths = [[np.linalg.norm(mesh[a] - mesh[b]) for a, b in topology.edges] for mesh in vertices]
  expected = np.square(lengths - np.mean(lengths, axis=1, keepdims=True)).mean(axis=1)
  np.testing.assert_allclose(edge_loss(jnp.asarray(vertices), topology), expected, rtol=1e-4)


def test_edge_descent_does_not_shrink_the_mesh(vertices, topology):
  def mean_length(x):
    edges = x[:, topology.edges[:, 0]] - x[:, topology.edges[:, 1]]
    return np.mean(np.linalg.norm(edges, axis=-1))

  grad = jax.grad(lambda x: edge_loss(x, topology).sum())(jnp.asarray(vertices))
  moved = vertices - np.asarray(grad)
  assert (
    edge_loss(jnp.asarray(moved), topology).sum() < edge_loss(jnp.asarray(vertices), topology).sum()
  )
  np.testing.assert_allclose(mean_length(moved), mean_length(vertices), rtol=0.02)


def test_edge_collapsed_edges_have_a_finite_gradient(vertices, topology):
  a, b = topology.edges[0]
  vertices[0, a] = vertices[0, b]
  vertices[1] = 0.0
  value, grad = jax.value_and_grad(lambda x: edge_loss(x, topology).sum())(jnp.asarray(vertices))
  assert np.isfinite(value)
  assert np.isfinite(grad).all()


def test_deformation_matches_the_golden_value(golden_geometry):
  loss = deformation_loss(jnp.asarray(golden_geometry["deform/delta_v"]))
  np.testing.assert_allclose(loss.mean(), golden_geometry["deform/loss"], rtol=1e-5)


def test_deformation_constant_offset_costs_its_length():
  offsets = jnp.tile(jnp.asarray([0.3, 0.0, -0.4]), (2, 7, 1))
  np.testing.assert_allclose(deformation_loss(offsets), [0.5, 0.5], rtol=1e-6)


def test_deformation_zero_offsets_cost_nothing_and_have_zero_gradient():
  value, grad = jax.value_and_grad(deformation_loss)(jnp.zeros((7, 3)))
  assert value == 0.0
  assert (np.asarray(grad) == 0.0).all()


def test_deformation_gradient_pulls_every_moved_vertex_equally(rng):
  offsets = rng.normal(size=(9, 3)).astype(np.float32)
  offsets[4] = 0.0
  grad = np.linalg.norm(jax.grad(deformation_loss)(jnp.asarray(offsets)), axis=-1)
  np.testing.assert_allclose(np.delete(grad, 4), 1 / 9, rtol=1e-5)
  assert grad[4] == 0.0


def test_shape_variance_is_none_of_what_all_shapes_share(rng):
  offsets = jnp.asarray(rng.normal(size=(4, 9, 3)), jnp.float32)
  shared = jnp.asarray(rng.normal(size=(1, 9, 3)), jnp.float32)
  np.testing.assert_allclose(
    shape_variance_loss(offsets + shared), shape_variance_loss(offsets), rtol=1e-4
  )
  same = jnp.repeat(shared, 4, axis=0)
  value, grad = jax.value_and_grad(lambda o: shape_variance_loss(o).sum())(same)
  np.testing.assert_allclose(value, 0.0, atol=1e-5)
  assert np.isfinite(grad).all()


def test_shape_variance_is_the_distance_from_the_mean():
  offsets = jnp.stack([jnp.full((5, 3), 0.2), jnp.full((5, 3), -0.2)])
  np.testing.assert_allclose(shape_variance_loss(offsets), [0.2 * 3**0.5] * 2, rtol=1e-5)


def test_orientation_of_the_unit_sphere_is_the_reference_value(fine_topology):
  loss = orientation_loss(jnp.asarray(fine_topology.sphere))
  np.testing.assert_allclose(loss, 0.4982, atol=5e-5)


def test_orientation_matches_numpy_per_mesh(vertices):
  expected = np.abs(vertices[..., 1]).mean(axis=-1)
  np.testing.assert_allclose(orientation_loss(jnp.asarray(vertices)), expected, rtol=1e-6)


def test_orientation_pulls_towards_the_plane_along_y_only_and_not_from_it():
  vertices = jnp.asarray([[1.0, 2.0, 3.0], [1.0, -0.5, 3.0], [1.0, 0.0, 3.0]])
  grad = jax.grad(orientation_loss)(vertices)
  np.testing.assert_allclose(
    grad, [[0.0, 1 / 3, 0.0], [0.0, -1 / 3, 0.0], [0.0, 0.0, 0.0]], rtol=1e-6
  )


def test_safe_norm_is_the_norm(rng):
  vectors = rng.normal(size=(4, 5, 3)).astype(np.float32)
  np.testing.assert_allclose(
    safe_norm(jnp.asarray(vectors)), np.linalg.norm(vectors, axis=-1), rtol=1e-6
  )


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-18, 1e-12, 1.0, 1e12])
def test_safe_norm_gradient_is_the_direction_or_zero_at_the_origin(size):
  grad = jax.grad(safe_norm)(jnp.asarray([0.6, -0.8, 0.0]) * size)
  assert np.isfinite(grad).all()
  # Squares below the smallest float round to zero, and then so does the gradient.
  expected = [0.6, -0.8, 0.0] if size >= 1e-18 else [0.0, 0.0, 0.0]
  np.testing.assert_allclose(grad, expected, rtol=1e-5)
