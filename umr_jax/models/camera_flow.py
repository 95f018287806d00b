"""The texture flow that geometry knows: where a camera sees each point of the UV map."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from umr_jax.geometry import camera
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
  """Where each point of the surface, or its mirror image, lies on the photograph.

  Of a point and its mirror image the one counts that lies on the camera's side of the mirror plane:
  it may be seen, where the other one is hidden. The flow of the two is the same.

  Args:
    vertices: every image's mesh, in object space.
    cameras: one of each image.
    topology: of the meshes.
    uv_height: rows of the flow map, which has twice as many columns.

  Returns:
    Image positions (x, y), held within [-1, 1]. No gradient passes: shapes and cameras are not bent
    to find better colours.

  Departs: Li et al. 2020 (section 3.1) let a network predict the whole flow; this is the part that
    shape and camera determine.
  """
  corners, weights = uv_corners(topology, uv_height)
  places = camera.project(vertices, cameras)[..., :2]
  own = jnp.einsum("hwk,bhwkc->bhwc", weights, places[:, corners])
  partners = own[:, :, mirrored_columns(uv_height)]
  u = (np.arange(2 * uv_height) + 0.5) / uv_height - 1.0
  on_right = np.abs(u) < 0.5  # y > 0
  # The depth at which the object's y axis points in the camera's frame: to the viewer if negative.
  right_is_near = camera.rotation(cameras)[:, 2, 1] <= 0.0
  near = right_is_near[:, None] == on_right[None]
  flow = jnp.where(near[:, None, :, None], own, partners)
  return jax.lax.stop_gradient(jnp.clip(flow, -1.0, 1.0))
