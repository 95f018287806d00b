"""Plain shading, to look at a shape without its texture."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from umr_jax.checking import checked

# From the surface towards the lamp: to the viewer's left, up, and back to the viewer.
_LAMP = (-0.4, -0.6, -0.7)
_AMBIENT = 0.35
# A face without area has no normal; its length is kept from zero by this.
_LEAST_AREA = 1e-12


@checked
def face_normals(
  vertices: Float[Array, "*B V 3"], faces: Int[Array | np.ndarray, "F 3"]
) -> Float[Array, "*B F 3"]:
  """Unit normals that point to the viewer, whatever way the faces wind; zero for slivers.

  Args:
    vertices: in image space (x right, y down, z into the scene), or in any space that shares its
      directions.
    faces: corners of each face.
  """
  corners = [vertices[..., faces[:, i], :] for i in range(3)]
  normal = jnp.cross(corners[1] - corners[0], corners[2] - corners[0])
  towards = jnp.where(normal[..., 2:] > 0.0, -normal, normal)
  square = jnp.sum(towards * towards, axis=-1, keepdims=True)
  return towards / jnp.sqrt(jnp.maximum(square, _LEAST_AREA**2))


@checked
def shaded_colors(
  vertices: Float[Array, "*B V 3"],
  faces: Int[Array | np.ndarray, "F 3"],
  *,
  color: tuple[float, float, float] = (0.75, 0.78, 0.82),
) -> Float[Array, "*B F 1 3"]:
  """Colours of a matt surface in the light of a lamp at the viewer's upper left.

  The result is a texture of one texel per face, ready for `soft_rasterize`. Both sides of a face
  are lit alike, as the rasterizer shows both.

  Args:
    vertices: in image space, x right, y down, z into the scene.
    faces: corners of each face.
    color: of the surface in full light, red, green, blue in [0, 1].
  """
  lamp = np.array(_LAMP, np.float32) / np.linalg.norm(_LAMP).astype(np.float32)
  facing = jnp.einsum("...k,k->...", face_normals(vertices, faces), lamp)
  light = _AMBIENT + (1.0 - _AMBIENT) * jnp.maximum(facing, 0.0)
  return jnp.einsum("...,c->...c", light, np.array(color, np.float32))[..., None, :]
