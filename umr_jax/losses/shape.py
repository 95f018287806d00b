"""Regularisers of the shape: smoothness, regular faces, and closeness to the template."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.types import Topology, checked

# Inside the roots, so that a face without area has a finite derivative. In squared object units:
# (1e-3)^2, against edges of about 0.15 at 642 vertices.
EPS = 1e-6


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


def _dot(a: Array, b: Array) -> Array:
  return jnp.sum(a * b, axis=1)


def _perpendicular(edge: Array, side: Array) -> tuple[Array, Array]:
  """The part of `side` across `edge`, and its length, both safe where either vanishes."""
  along = _dot(edge, side)
  edge_squared = _dot(edge, edge)
  edge_length = jnp.sqrt(edge_squared + EPS)
  side_length = jnp.sqrt(_dot(side, side) + EPS)
  cosine = along / (edge_length * side_length + EPS)
  # EPS also covers the rounding of a cosine of 1 in a sliver.
  sine = jnp.sqrt(1.0 - jnp.square(cosine) + EPS)
  across = side - edge * (along / (edge_squared + EPS))[:, None]
  return across, side_length * sine


@checked
def flatten_loss(vertices: Float[Array, "*B V 3"], topology: Topology) -> Float[Array, "*B"]:
  """Sum over edges of (1 + cos)^2, where cos is -1 for two faces that continue each other.

  cos is taken between the two in-plane perpendiculars to the shared edge, each pointing from the
  edge into its face: -1 for a flat pair, 0 for a right-angled crease, 1 for a face folded onto its
  neighbour.

  Args:
    vertices: the whole mesh in object space.
    topology: gives the edges with the vertices opposite to them.

  Returns:
    One value per mesh, a sum over edges. 0.0312 for the 642-vertex unit sphere.

  Source: flatten term of Liu et al. 2019 (SoftRas), which the released models use beside the
  Laplacian of Li et al. 2020, supplementary section on smoothness.

  Departs: every edge counts once. The released code collects edges from two of a face's three
  sides, and so leaves out 66 to 313 of the 1920 edges, depending on the order of the faces.
  """
  # [V, 3, *B]: gathers then copy whole rows and the arithmetic runs along the batch, several times
  # faster on a CPU than with x, y, z innermost.
  planar = jnp.moveaxis(vertices, (-2, -1), (0, 1))
  start, end, left, right = (planar[topology.face_pairs[:, i]] for i in range(4))
  edge = end - start
  left_across, left_length = _perpendicular(edge, left - start)
  right_across, right_length = _perpendicular(edge, right - start)
  cosine = _dot(left_across, right_across) / (left_length * right_length + EPS)
  return jnp.sum(jnp.square(1.0 + cosine), axis=0)


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


@checked
def deformation_loss(half_offsets: Float[Array, "*B Vh 3"]) -> Float[Array, "*B"]:
  """Mean length of the offsets that take the template to an instance.

  The length, not its square: it favours few large offsets over many small ones.

  Args:
    half_offsets: predicted offsets of the learned half of the vertices, in object space.

  Returns:
    One value per image, in object units. Its gradient is zero at a zero offset.

  Source: Li et al. 2020, section 3.2 (deformation regularization), after Kanazawa et al. 2018
  (CMR).
  """
  return jnp.mean(safe_norm(half_offsets), axis=-1)


@checked
def shape_variance_loss(half_offsets: Float[Array, "B Vh 3"]) -> Float[Array, "B"]:
  """Mean distance of an instance's offsets from their mean over the batch.

  With a large weight all instances share one shape, which is free to change: only cameras are left
  to explain different views. Without it any outline can be fitted under a few cameras.

  Args:
    half_offsets: predicted offsets of the learned half of the vertices, in object space; on several
      devices the batch is the device's share.

  Returns:
    One value per image, in object units; zero for a batch of equal shapes.

  Source: not in Li et al. 2020; Goel et al. 2020 (U-CMR) settle the cameras with the template alone
  before they free the shapes.
  """
  mean = jnp.mean(half_offsets, axis=0, keepdims=True)
  return jnp.mean(safe_norm(half_offsets - mean), axis=-1)


@checked
def orientation_loss(vertices: Float[Array, "*B V 3"]) -> Float[Array, "*B"]:
  """Mean distance of the vertices to the mirror plane y = 0.

  Used for the first steps only: it flattens the early shape towards its symmetry plane, so that the
  cameras learn to view the flat side, which is the side view of most images.

  Args:
    vertices: the whole mesh in object space.

  Returns:
    One value per mesh, in object units. 0.4982 for the 642-vertex unit sphere.

  Source: training schedule of the released models; not in the text of Li et al. 2020.
  """
  y = vertices[..., 1]
  # |y| with derivative 0 at 0, where that of `jnp.abs` is 1: the centre vertices lie exactly there.
  return jnp.mean(y * jax.lax.stop_gradient(jnp.sign(y)), axis=-1)


@checked
def safe_norm(vectors: Float[Array, "*N C"]) -> Float[Array, "*N"]:
  """Length of each vector, with gradient zero where the length is zero.

  The plain norm's derivative at the origin is 0 / 0, and the origin is where predicted offsets
  start and where the edges of a collapsed face end.

  Args:
    vectors: any number of vectors of C coordinates.

  Returns:
    The lengths, exact: no epsilon is added.
  """
  squared = jnp.sum(jnp.square(vectors), axis=-1)
  nonzero = squared > 0.0
  # The inner `where` keeps the root's infinite derivative out of the backward pass; the outer one
  # restores the value. One alone would leave 0 * inf = NaN.
  return jnp.where(nonzero, jnp.sqrt(jnp.where(nonzero, squared, 1.0)), 0.0)
