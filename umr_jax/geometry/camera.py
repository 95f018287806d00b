"""Weak-perspective cameras: projection, and the views that a symmetric object relates.

A camera travels as one array [..., 7], [scale, tx, ty, qw, qx, qy, qz], so that batches, files and
networks hold arrays alone; `Camera` names its parts where they are computed with. It turns object
space into the camera's frame by its quaternion, then scales and shifts it into image space, x right
and y down, [-1, 1] to the outer pixel edges. z points into the scene, so that the smaller depth is
the nearer one.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from umr_jax.checking import checked
from umr_jax.geometry import quaternion

# Added to every depth of cameras up to scale 2, beyond which `depth_offset` grows.
DEPTH_OFFSET = 5.0
# The rasterizer's default near plane, and how far from the object's origin points may lie, in
# object units, to stay behind it at any scale. The unit is the initial sphere's radius.
_NEAR, _OBJECT_RADIUS = 1.0, 2.0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Camera:
  """The parts of weak-perspective cameras, of any leading dimensions; a JAX pytree.

  Attributes:
    scale: image units for each object unit.
    translation: of the object's origin, in image units, x right and y down.
    quaternion: (w, x, y, z), the rotation from object space to the camera's frame.
  """

  scale: Float[Array, "*B"]
  translation: Float[Array, "*B 2"]
  quaternion: Float[Array, "*B 4"]

  @classmethod
  def unpack(cls, cameras: Float[Array, "*B 7"]) -> "Camera":
    """The parts of packed cameras.

    Args:
      cameras: [scale, tx, ty, qw, qx, qy, qz] of each.
    """
    return cls(cameras[..., 0], cameras[..., 1:3], cameras[..., 3:])

  def pack(self) -> Float[Array, "*B 7"]:
    """The cameras as one array, [scale, tx, ty, qw, qx, qy, qz] of each."""
    return jnp.concatenate([self.scale[..., None], self.translation, self.quaternion], axis=-1)


@checked
def project(
  vertices: Float[Array, "*B V 3"], cameras: Float[Array, "*B 7"]
) -> Float[Array, "*B V 3"]:
  """Projects vertices into image space and keeps their depth.

  Args:
    vertices: points in object space.
    cameras: one camera for each set of points.

  Returns:
    (s X.x + tx, s X.y + ty, s X.z + d) of the rotated points X: image x and y (down), and depth;
    d is the camera's `depth_offset`, 5 up to scale 2. No gradient passes through d.

  Raises:
    jaxtyping.TypeCheckError: where leading dimensions differ: K hypotheses of one image need its
      vertices broadcast to [B, K, V, 3] first.

  Source: Kanazawa et al. 2018, section 3.1 (weak perspective). y is down here, and needs no flip.
  """
  camera = Camera.unpack(cameras)
  rotated = quaternion.rotate(vertices, camera.quaternion)
  shift = jnp.concatenate([camera.translation, depth_offset(cameras)[..., None]], axis=-1)
  return camera.scale[..., None, None] * rotated + shift[..., None, :]


@checked
def depth_offset(cameras: Float[Array, "*B 7"]) -> Float[Array, "*B"]:
  """What is added to depths: it keeps the object beyond the rasterizer's near plane.

  Depth scales with the image, since a soft rasterizer compares the two nowhere. With a constant
  offset of 5 a unit sphere would cross the near plane, 1, from scale 4 on and lose its colour, and
  the camera's own plane from scale 5 on and lose its faces.

  Args:
    cameras: any cameras.

  Returns:
    max(5, 1 + 2 s), held fixed under differentiation: points up to 2 units away from the object's
    origin stay beyond the near plane at any scale s.
  """
  scale = jax.lax.stop_gradient(Camera.unpack(cameras).scale)
  return jnp.maximum(_NEAR + _OBJECT_RADIUS * scale, DEPTH_OFFSET)


@checked
def face_vertices(
  projected: Float[Array, "*B V 3"], faces: Int[Array | np.ndarray, "F 3"]
) -> Float[Array, "*B F 3 3"]:
  """Gathers the three corners of every face, the rasterizer's input.

  Args:
    projected: vertices in image space, from `project`.
    faces: vertex indices, shared by the whole batch.

  Returns:
    Corners, ordered [face, corner, (x, y, depth)].
  """
  return jnp.take(projected, jnp.asarray(faces), axis=-2, mode="clip")


@checked
def project_faces(
  vertices: Float[Array, "*B V 3"],
  cameras: Float[Array, "*B 7"],
  faces: Int[Array | np.ndarray, "F 3"],
) -> Float[Array, "*B F 3 3"]:
  """Projects meshes and gathers their faces' corners, the rasterizer's input.

  Args:
    vertices: points in object space.
    cameras: one camera for each set of points.
    faces: vertex indices, shared by the whole batch.

  Returns:
    Corners, ordered [face, corner, (x, y, depth)].
  """
  return face_vertices(project(vertices, cameras), faces)


@checked
def rotation(cameras: Float[Array, "*B 7"]) -> Float[Array, "*B 3 3"]:
  """The rotation matrices from object space to the cameras' frames."""
  return quaternion.to_matrix(Camera.unpack(cameras).quaternion)


@checked
def facing_away(
  vertices: Float[Array, "*B V 3"], cameras: Float[Array, "*B 7"], faces: Int[np.ndarray, "F 3"]
) -> Float[Array, "*B F"]:
  """How far each face's normal points into the scene; negative for front faces.

  Args:
    vertices: in object space.
    cameras: one of each mesh.
    faces: wound outward.

  Returns:
    The normal's depth times twice the face's area, in squared object units.
  """
  a, b, c = (vertices[..., faces[:, i], :] for i in range(3))
  return jnp.einsum("...fc,...c->...f", jnp.cross(b - a, c - a), rotation(cameras)[..., 2, :])


@checked
def rotate_view(
  cameras: Float[Array, "*B 7"], degrees: Float[Array, "*B"] | Int[Array, "*B"] | float | int
) -> Float[Array, "*B 7"]:
  """Turns the object about the camera's vertical, the image's y axis: Rot_y(angle) R.

  Args:
    cameras: the views to start from; scale and translation stay.
    degrees: by how much, by the right-hand rule about the axis that points down: a positive angle
      moves the side that faces the viewer to the left. One for all, or one for each camera.

  Returns:
    Cameras of the turned object.

  Source: Li et al. 2020, supplementary 2.2, the novel views given to the discriminator.
  """
  half = jnp.broadcast_to(jnp.asarray(degrees, cameras.dtype), cameras.shape[:-1])
  half = half * (math.pi / 360.0)
  zero = jnp.zeros_like(half)
  turn = jnp.stack([jnp.cos(half), zero, jnp.sin(half), zero], axis=-1)
  camera = Camera.unpack(cameras)
  turned = quaternion.multiply(turn, camera.quaternion)
  return dataclasses.replace(camera, quaternion=turned).pack()


@checked
def azimuth_turns(count: int) -> Float[Array, "count 4"]:
  """The quaternions of `count` turns about object z, evenly spread over the full circle.

  Args:
    count: how many; at least 1. Turn k is by 360 k / count degrees.

  Returns:
    Unit quaternions. Multiply them from the right: q q_k turns the object before q does.
  """
  half = np.pi * np.arange(count) / count
  zero = np.zeros(count)
  return jnp.asarray(np.stack([np.cos(half), zero, zero, np.sin(half)], axis=-1), jnp.float32)


@checked
def spread_azimuth(cameras: Float[Array, "*B 7"], count: int) -> Float[Array, "*B count 7"]:
  """Copies each camera to `count` azimuths about the object's own vertical, z.

  They show the object from around it, as figures do.

  Args:
    cameras: of the object.
    count: the number of copies; copy k is turned by 360 k / count degrees.

  Returns:
    The copies; the first is the camera itself.
  """
  shape = (*cameras.shape[:-1], count)
  copies = jnp.broadcast_to(cameras[..., None, :], (*shape, 7))
  turns = jnp.broadcast_to(
    azimuth_turns(count).reshape((1,) * (cameras.ndim - 1) + (count, 4)), (*shape, 4)
  )
  turned = quaternion.multiply(copies[..., -4:], turns)
  return jnp.concatenate([copies[..., :-4], turned], axis=-1)
