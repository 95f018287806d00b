"""Folds: how much of a mesh shows its inside, which no silhouette tells."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.geometry import camera
from umr_jax.render import rasterize
from umr_jax.types import Topology, checked


@checked
def inside_out(
  vertices: Float[Array, "B V 3"],
  cameras: Float[Array, "B 7"],
  topology: Topology,
  *,
  image_size: int,
) -> Float[Array, "B"]:
  """The share of what is seen, from the camera and from behind, that is the inside of a face.

  Args:
    vertices: every image's mesh, in object space.
    cameras: one of each image.
    topology: of the meshes.
    image_size: pixels per side of the renders.

  Returns:
    One value per image: 0 for every closed surface that does not fold through itself, and where
    nothing is seen; 1 for one that is turned inside out.
  """
  inside, seen = jnp.zeros(len(vertices)), jnp.zeros(len(vertices))
  for view in (cameras, camera.rotate_view(cameras, 180.0)):
    faces = camera.project_faces(vertices, view, topology.outward_faces)
    blank = jnp.zeros((*faces.shape[:2], 1, 1))
    drawn = rasterize(faces, blank, image_size=image_size, aggr_rgb="hard")
    nearest = drawn.face_ids.reshape(len(vertices), -1)
    depth = camera.facing_away(vertices, view, topology.outward_faces)
    away = jnp.take_along_axis(depth, jnp.maximum(nearest, 0), axis=1) > 0.0
    covered = nearest >= 0
    inside += jnp.sum(covered & away, axis=1, dtype=inside.dtype)
    seen += jnp.sum(covered, axis=1, dtype=seen.dtype)
  return inside / jnp.maximum(seen, 1.0)
