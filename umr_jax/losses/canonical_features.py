"""How far images are from the canonical features: what the encoder sees at vertices, on average.

A part map says to which of a few parts a point of the surface belongs; features say the same before
it is quantised. They are compared by their directions: whitened, as pose search compares them, they
find the same place in another image of real birds two thirds as often.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from umr_jax.geometry import camera
from umr_jax.geometry.sampling import bilinear_sample
from umr_jax.render import rasterize, visibility
from umr_jax.render.settings import ImageSize
from umr_jax.types import CanonicalFeatures, Projection, Topology, checked

_TINY = 1e-6


@checked
def unit_features(projection: Projection, maps: Float[Array, "B h w F"]) -> Float[Array, "B h w C"]:
  """The directions of a network's features among their principal components, one in each cell.

  Args:
    projection: on the components.
    maps: of the frozen encoder, at its coarsest resolution.
  """
  channels = (maps - projection.mean.reshape(1, 1, 1, -1)) @ projection.matrix
  return channels / jnp.maximum(jnp.linalg.norm(channels, axis=-1, keepdims=True), _TINY)


def visible_vertices(
  vertices: Float[Array, "B V 3"],
  cameras: Float[Array, "B 7"],
  topology: Topology,
  *,
  image_size: ImageSize,
) -> Bool[Array, "B V"]:
  """The vertices of faces that are the nearest at one pixel at least.

  Args:
    vertices: in object space.
    cameras: of the images.
    topology: of the meshes.
    image_size: in pixels.
  """
  corners = camera.project_faces(vertices, cameras, topology.faces)
  nothing = jnp.zeros((*corners.shape[:2], 1, 1))
  shown = rasterize(corners, nothing, image_size=image_size, aggr_rgb="hard").visible
  return visibility.visible_vertices(shown, topology.faces, num_vertices=topology.num_vertices)


@checked
def feature_distance(
  canonical: CanonicalFeatures,
  features: Float[Array, "B h w C"],
  projected: Float[Array, "B V 2"],
  visible: Bool[Array, "B V"],
) -> Float[Array, "B"]:
  """How far what the images show at visible vertices is from the canonical features.

  Args:
    canonical: of the category.
    features: of the images, from `unit_features`.
    projected: vertices in image space.
    visible: the vertices that count.

  Returns:
    The mean squared distance in units of the category's variance: 1 for the usual image.
  """
  shown = bilinear_sample(features, projected)
  squared = jnp.sum(jnp.square(shown - canonical.values[None]), axis=-1)
  weights = (visible & canonical.known[None]).astype(shown.dtype)
  mean = jnp.sum(weights * squared, axis=-1) / jnp.maximum(jnp.sum(weights, axis=-1), 1.0)
  return mean / canonical.variance
