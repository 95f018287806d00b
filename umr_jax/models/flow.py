"""Texture flow that geometry determines: where each point projects to, kept on the object."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from umr_jax.geometry import camera
from umr_jax.geometry.sampling import axis_centers, bilinear_sample, pixel_centers
from umr_jax.geometry.uv import mirrored_columns, uv_corners
from umr_jax.types import Topology, checked


@checked
def camera_flow(
  vertices: Float[Array, "B V 3"],
  cameras: Float[Array, "B 7"],
  topology: Topology,
  *,
  uv_height: int,
) -> Float[Array, "B Hu Wu 2"]:
  """Where each point of the surface, or its mirror image, is projected.

  With a symmetric texture a point and its mirror image share one flow: the position of that on the
  camera's side of the mirror plane. Otherwise each has its own position, but for a point that faces
  away while its mirror image faces the camera: it takes that one's.

  Args:
    vertices: every image's mesh, in object space.
    cameras: one of each image.
    topology: of the meshes.
    uv_height: rows of the flow map, which has twice as many columns.

  Returns:
    Image positions (x, y), held within [-1, 1]. No gradient passes: no term changes shapes or
    cameras to find better colours.

  Departs: Li et al. 2020 (section 3.1) let a network predict the whole flow; this is the part that
    shape and camera determine.
  """
  corners, weights = uv_corners(topology, uv_height)
  places = camera.project(vertices, cameras)[..., :2]
  own = jnp.einsum("hwk,bhwkc->bhwc", weights, places[:, corners])
  partners = own[:, :, mirrored_columns(uv_height)]
  if topology.symmetric_texture:
    on_right = np.abs(axis_centers(2 * uv_height)) < 0.5  # y > 0
    # The depth at which the object's y axis points in the camera's frame: negative to the viewer.
    right_is_near = camera.rotation(cameras)[:, 2, 1] <= 0.0
    stays = (right_is_near[:, None] == on_right[None])[:, None]
  else:
    facing = jnp.einsum(
      "hwk,bhwk->bhw", weights, _depth_of_normals(vertices, cameras, topology)[:, corners]
    )
    stays = (facing <= 0.0) | (facing[:, :, mirrored_columns(uv_height)] > 0.0)
  flow = jnp.where(stays[..., None], own, partners)
  return jax.lax.stop_gradient(jnp.clip(flow, -1.0, 1.0))


def _depth_of_normals(
  vertices: Float[Array, "B V 3"], cameras: Float[Array, "B 7"], topology: Topology
) -> Float[Array, "B V"]:
  """How far each vertex's normal points into the scene; negative where it faces the camera."""
  depth = camera.facing_away(vertices, cameras, topology.outward_faces)
  spread = jnp.repeat(depth, 3, axis=1)
  total = jnp.zeros(vertices.shape[:2], vertices.dtype)
  return total.at[:, topology.outward_faces.reshape(-1)].add(spread)


_COVERED = 0.5


@checked
def clamp_to_mask(
  flow: Float[Array, "B Hu Wu 2"], mask: Float[Array, "B h w"]
) -> Float[Array, "B Hu Wu 2"]:
  """Moves positions outside of a silhouette to the nearest ones within it.

  A mesh never ends where the object does, to the pixel: without this its texture has a rim of
  background.

  Args:
    flow: positions (x, y) in the image.
    mask: the object's silhouette in the same image, small: every pixel is compared with every
      other.

  Returns:
    The flow, unchanged between pixels that are covered (half or more) and, in an image where none
    is, everywhere. Continuous in `flow`: a position between a covered pixel and one that is not
    moves by a share of what the latter does.

  Source: not in Li et al. 2020, whose network predicts the whole flow.
  """
  batch, height, width, _ = flow.shape
  # Held to the outermost centres, beyond which a look-up would fade.
  last = jnp.asarray(pixel_centers(*mask.shape[1:])[-1, -1])[None, None]
  places = jnp.clip(flow.reshape(batch, height * width, 2), -last, last)
  # One image at a time: h w h w numbers of each.
  moves = bilinear_sample(jax.lax.map(_to_nearest, mask), places)
  return flow + moves.reshape(flow.shape)


def _to_nearest(mask: Float[Array, "h w"]) -> Float[Array, "h w 2"]:
  """From each pixel's centre to the nearest covered one's."""
  height, width = mask.shape
  centers = jnp.asarray(pixel_centers(height, width).reshape(-1, 2))
  covered = mask.reshape(-1) >= _COVERED
  squared = jnp.sum(jnp.square(centers[:, None] - centers[None]), axis=-1)
  nearest = jnp.argmin(jnp.where(covered[None], squared, jnp.inf), axis=1)
  moves = jnp.where(jnp.any(covered), centers[nearest] - centers, 0.0)
  return moves.reshape(height, width, 2)
