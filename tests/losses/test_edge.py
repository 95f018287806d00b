"""edge_loss: zero for equal edges, its loop, and edges without length."""

import jax
import jax.numpy as jnp
import numpy as np

from umr_jax.geometry.topology import build_topology
from umr_jax.losses.edge import edge_loss


def test_the_icosahedron_has_equal_edges():
  topology = build_topology(0, texels_per_side=1, symmetric_texture=False)
  np.testing.assert_allclose(edge_loss(jnp.asarray(topology.sphere), topology), 0.0, atol=1e-10)


def test_matches_the_loop_it_vectorises(vertices, topology):
  lengths = [[np.linalg.norm(mesh[a] - mesh[b]) for a, b in topology.edges] for mesh in vertices]
  expected = np.square(lengths - np.mean(lengths, axis=1, keepdims=True)).mean(axis=1)
  np.testing.assert_allclose(edge_loss(jnp.asarray(vertices), topology), expected, rtol=1e-4)


def test_descent_does_not_shrink_the_mesh(vertices, topology):
  def mean_length(x):
    edges = x[:, topology.edges[:, 0]] - x[:, topology.edges[:, 1]]
    return np.mean(np.linalg.norm(edges, axis=-1))

  grad = jax.grad(lambda x: edge_loss(x, topology).sum())(jnp.asarray(vertices))
  moved = vertices - np.asarray(grad)
  assert (
    edge_loss(jnp.asarray(moved), topology).sum() < edge_loss(jnp.asarray(vertices), topology).sum()
  )
  np.testing.assert_allclose(mean_length(moved), mean_length(vertices), rtol=0.02)


def test_collapsed_edges_have_a_finite_gradient(vertices, topology):
  a, b = topology.edges[0]
  vertices[0, a] = vertices[0, b]
  vertices[1] = 0.0
  value, grad = jax.value_and_grad(lambda x: edge_loss(x, topology).sum())(jnp.asarray(vertices))
  assert np.isfinite(value)
  assert np.isfinite(grad).all()
