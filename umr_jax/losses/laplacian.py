"""Smoothness: every vertex should lie at the mean of its neighbours."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.types import Topology, checked


@checked
def laplacian_loss(vertices: Float[Array, "*B V 3"], topology: Topology) -> Float[Array, "*B"]:
  """Squared uniform graph Laplacian of the mesh, summed over its vertices.

  Keeps neighbouring vertices moving together, so that a silhouette cannot be matched by spikes.

  Args:
    vertices: the whole mesh in object space (not scaled by a camera).
    topology: gives each vertex's neighbours.

  Returns:
    One value per mesh: the sum over vertices and x, y, z of (x_i - mean of i's neighbours)^2, in
    squared object units. A sum, not a mean: the loss weights are tied to that. 0.0949 for the
    642-vertex unit sphere.

  Source: Li et al. 2020, supplementary section on smoothness (graph Laplacian constraint), after
  Sorkine et al. 2004 with uniform weights.
  """
  degrees = jnp.asarray(topology.degrees, dtype=vertices.dtype)
  degrees = degrees.reshape((1,) * (vertices.ndim - 2) + (-1, 1))
  # Rows shorter than the table are padded with the vertex itself: count those out again.
  padding = topology.neighbors.shape[-1] - degrees
  around = jnp.sum(vertices[..., topology.neighbors, :], axis=-2)
  mean = (around - padding * vertices) / degrees
  return jnp.sum(jnp.square(vertices - mean), axis=(-2, -1))
