"""flatten_loss: golden and reference values, its loop, folds and faces without area."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.losses.flatten import flatten_loss


def hinge(degrees):
  """One edge along x between two unit triangles that stand at an angle (180: flat)."""
  angle = np.deg2rad(degrees)
  side = [0.5, np.cos(angle), np.sin(angle)]
  return jnp.asarray([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, 1.0, 0.0], side], jnp.float32)


@pytest.fixture
def one_edge(topology):
  return topology.replace(face_pairs=np.array([[0, 1, 2, 3]], np.int32))


def test_matches_the_golden_values(golden_geometry, golden_topology):
  loss = flatten_loss(jnp.asarray(golden_geometry["camera/vertices"]), golden_topology)
  np.testing.assert_allclose(loss, golden_geometry["flatten/loss"], rtol=2e-5)


def test_of_the_unit_sphere_is_the_reference_value(fine_topology):
  loss = flatten_loss(jnp.asarray(fine_topology.sphere), fine_topology)
  np.testing.assert_allclose(loss, 0.0312, atol=5e-5)


@pytest.mark.parametrize("degrees", [180.0, 120.0, 90.0, 30.0, 0.0])
def test_a_hinge_costs_what_its_angle_says(one_edge, degrees):
  # The cosine between the perpendiculars is that of the angle.
  expected = (1.0 + np.cos(np.deg2rad(degrees))) ** 2
  np.testing.assert_allclose(flatten_loss(hinge(degrees), one_edge), expected, atol=1e-4)


def test_matches_the_loop_it_vectorises(vertices, topology):
  expected = np.zeros(len(vertices))
  for b, mesh in enumerate(vertices.astype(np.float64)):
    for i, j, *opposite in topology.face_pairs:
      along = (mesh[j] - mesh[i]) / np.linalg.norm(mesh[j] - mesh[i])
      across = [mesh[m] - mesh[i] - along * (along @ (mesh[m] - mesh[i])) for m in opposite]
      cosine = across[0] @ across[1] / np.prod(np.linalg.norm(across, axis=-1))
      expected[b] += (1 + cosine) ** 2
  # The epsilons, which the loop lacks, move it by 1e-4 at most.
  np.testing.assert_allclose(flatten_loss(jnp.asarray(vertices), topology), expected, rtol=3e-4)


def test_gradient_matches_finite_differences_in_direction(vertices, topology, rng):
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
def test_faces_without_area_have_finite_values_and_gradients(one_edge, damage):
  value, grad = jax.jit(jax.value_and_grad(lambda x: flatten_loss(x, one_edge)))(
    damage(hinge(150.0))
  )
  assert np.isfinite(value)
  assert np.isfinite(grad).all()
