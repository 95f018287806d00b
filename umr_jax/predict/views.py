"""Antialiased renders of meshes from any side, for figures.

A "view" is a rendered mesh as [S, S, 4] floats in [0, 1] with straight alpha: the colour is that of
the surface alone, not multiplied by the coverage in the fourth channel.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from umr_jax.geometry import camera as camera_lib
from umr_jax.geometry.sampling import bilinear_sample
from umr_jax.predict.export import vertex_normals
from umr_jax.render import hard_rasterize
from umr_jax.types import Topology

# Towards the light, in the camera's frame: up, to the left, and on the viewer's side.
_LIGHT = np.array([-0.4, -0.7, -0.8]) / np.linalg.norm([-0.4, -0.7, -0.8])
_SAMPLES = 3  # of a pixel, each way
_UPRIGHT = (0.70710678, 0.70710678, 0.0, 0.0)  # a camera whose up is object z


def render_views(
  vertices: np.ndarray,
  cameras: np.ndarray,
  texels: np.ndarray,
  topology: Topology,
  *,
  image_size: int,
) -> np.ndarray:
  """Renders N textured meshes, one view of each, with smooth edges.

  Args:
    vertices: [N, V, 3] in object space.
    cameras: [N, 7].
    texels: [N, F, T, C] for the topology's `faces`; T = 3 stands for the colours of the corners.
    topology: of every mesh.
    image_size: pixels of a side, S.

  Returns:
    [N, S, S, C + 1] float32 in [0, 1], straight alpha last; 0 where nothing is.
  """
  corners = texels.shape[2] == 3
  view = _straight_view(
    jnp.asarray(vertices, jnp.float32),
    jnp.asarray(cameras, jnp.float32),
    jnp.asarray(texels, jnp.float32),
    jnp.asarray(topology.faces),
    image_size=image_size,
    texture_type="vertex" if corners else "surface",
  )
  return np.asarray(view)


@functools.partial(jax.jit, static_argnames=("image_size", "texture_type"))
def _straight_view(
  vertices: jax.Array,
  cameras: jax.Array,
  texels: jax.Array,
  faces: jax.Array,
  *,
  image_size: int,
  texture_type: Literal["surface", "vertex"],
) -> jax.Array:
  view = hard_rasterize(
    camera_lib.project_faces(vertices, cameras, faces),
    texels,
    image_size=image_size,
    texture_type=texture_type,
    antialias=_SAMPLES,
  )
  return jnp.clip(view, 0.0, 1.0)


def shaded_views(
  vertices: np.ndarray, cameras: np.ndarray, topology: Topology, *, image_size: int
) -> np.ndarray:
  """Renders N meshes in grey, lit from above the viewer; [N, S, S, 4], straight alpha.

  Args:
    vertices: [N, V, 3] in object space.
    cameras: [N, 7].
    topology: of every mesh.
    image_size: pixels of a side, S.
  """
  normals = np.stack([vertex_normals(mesh, topology) for mesh in np.asarray(vertices)])
  colors = shading(normals, cameras)[:, topology.faces]  # [N, F, 3 corners, 3]
  return render_views(vertices, cameras, colors, topology, image_size=image_size)


def shading(normals: np.ndarray, cameras: np.ndarray) -> np.ndarray:
  """Grey [N, V, 3] of vertices.

  Args:
    normals: [N, V, 3], outward, in object space.
    cameras: [N, 7].
  """
  rotations = np.asarray(camera_lib.rotation(jnp.asarray(cameras, jnp.float32)))
  facing = np.einsum("nvc,ndc,d->nv", normals, rotations, _LIGHT)
  return np.repeat((0.25 + 0.7 * np.clip(facing, 0.0, 1.0))[..., None], 3, axis=-1)


def four_sides(vertices: np.ndarray) -> np.ndarray:
  """Cameras [4, 7] under which a mesh [V, 3] is upright, fills the image, turned by 90 degrees."""
  radius = float(np.linalg.norm(vertices, axis=-1).max())
  upright = np.array([0.95 / max(radius, 1e-6), 0.0, 0.0, *_UPRIGHT], np.float32)
  return np.asarray(camera_lib.spread_azimuth(jnp.asarray(upright), 4))


def texture_texels(texture: np.ndarray, topology: Topology) -> np.ndarray:
  """What each texel reads from a texture map, [F, T, C] for the topology's `faces`.

  Args:
    texture: [Hu, Wu, C] of floats.
    topology: whose UV layout to use.
  """
  height, width, channels = texture.shape
  # Held inside the outermost pixel centres, as a viewer does: beyond, the look-up fades to zero.
  limit = 1.0 - 1.0 / np.array([width, height], np.float32)
  points = np.clip(topology.texel_uv.reshape(-1, 2), -limit, limit)
  values = np.asarray(bilinear_sample(jnp.asarray(texture), jnp.asarray(points)))
  return values.reshape(*topology.texel_uv.shape[:2], channels)[topology.face_texels]


def template_views(vertices: np.ndarray, topology: Topology, *, cell: int) -> np.ndarray:
  """The template upright, filling the image, from four sides; [4, S, S, 4].

  Args:
    vertices: [V, 3] in object space.
    topology: of the template.
    cell: pixels of a side, S.
  """
  meshes = np.repeat(np.asarray(vertices, np.float32)[None], 4, axis=0)
  return shaded_views(meshes, four_sides(vertices), topology, image_size=cell)


def over_white(view: np.ndarray) -> np.ndarray:
  """A view [..., 4] laid over white; float32 [..., 3]."""
  alpha = view[..., 3:]
  return (view[..., :3] * alpha + (1.0 - alpha)).astype(np.float32)
