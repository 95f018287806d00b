"""Regular faces: the edges of one mesh should be about equally long."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.losses.norm import safe_norm
from umr_jax.types import Topology, checked


@checked
def edge_loss(vertices: Float[Array, "*B V 3"], topology: Topology) -> Float[Array, "*B"]:
  """Variance of the edge lengths of each mesh.

  Args:
    vertices: the whole mesh in object space.
    topology: gives the edges, each once.

  Returns:
    One value per mesh: the mean over edges of (length - mean length)^2, in squared object units.

  Source: Li et al. 2020, supplementary section on smoothness (edge regularization against
  irregularly sized faces), after Wang et al. 2018 (Pixel2Mesh) and Gkioxari et al. 2019 (Mesh
  R-CNN).

  Departs: lengths are compared with the mesh's own mean length instead of with zero, so that the
  term asks for regular faces without also shrinking the mesh.
  """
  lengths = safe_norm(
    vertices[..., topology.edges[:, 1], :] - vertices[..., topology.edges[:, 0], :]
  )
  return jnp.var(lengths, axis=-1)
