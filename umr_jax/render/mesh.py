"""Pictures of meshes: vertices, faces and a camera instead of arrays of projected faces."""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from umr_jax.checking import checked
from umr_jax.geometry import camera as camera_lib
from umr_jax.geometry.sampling import bilinear_sample
from umr_jax.geometry.texels import texel_barycentrics
from umr_jax.render.rasterize import Scalar, TextureType, rasterize, soft_rasterize

# What "hard" looks at around a face, in squared samples: enough for the faces on whose border a
# sample lies, and little more.
_HARD_SIGMA = 0.1
# Figures show whatever lies in front of the viewer.
_NEAR, _FAR = 1e-12, 1e12


@checked
def render_mesh(
  vertices: Float[Array, "*B V 3"],
  faces: Int[Array | np.ndarray, "F 3"],
  camera: Float[Array, "*B 7"],
  *,
  image_size: int | tuple[int, int],
  vertex_colors: Float[Array, "*B V C"] | None = None,
  uv_texture: Float[Array, "*B Hu Wu C"] | None = None,
  uv: Float[Array | np.ndarray, "V 2"] | Float[Array | np.ndarray, "F 3 2"] | None = None,
  texels_per_side: int = 6,
  mode: Literal["soft", "hard"] = "soft",
  sigma: Scalar = 1e-5,
  gamma: Scalar = 1e-4,
  background: Scalar | Float[Array | np.ndarray, "C"] = 0.0,
  antialias: int = 1,
) -> Float[Array, "*B H W C1"]:
  """Draws meshes as seen by weak-perspective cameras, softly for training or hard for figures.

  Args:
    vertices: in object space; any number of meshes with the same faces.
    faces: corners of each face.
    camera: [scale, tx, ty, qw, qx, qy, qz] of each mesh; see `geometry.camera`. For any other
      camera, project the vertices yourself and give `soft_rasterize` their faces.
    image_size: side of the square image, or (height, width), in pixels.
    vertex_colors: any number of channels for each vertex, interpolated over faces.
    uv_texture: a texture map for each mesh, read bilinearly and continued beyond its borders; needs
      `uv`. Give either this or `vertex_colors`.
    uv: where on the map each vertex, or each corner of each face, reads: [-1, 1] from the map's
      outer edge to its outer edge, y down. A file's u, v in [0, 1], v up, is 2 u - 1, 1 - 2 v.
    texels_per_side: a face reads the map at this number squared of places.
    mode: "soft" is `soft_rasterize`: gradients reach vertices, cameras and colours. "hard" shows
      the nearest face at each sample, covered or not; only colours get gradients.
    sigma: softness of outlines; for "soft".
    gamma: softness of occlusion; for "soft".
    background: colour where no face is.
    antialias: renders at this multiple of `image_size` and averages.

  Returns:
    C channels of colour, not multiplied with alpha, then alpha.

  Raises:
    ValueError: unless exactly one of `vertex_colors` and `uv_texture` is given, the latter with
      `uv`; or when an option has no meaning.
  """
  if (vertex_colors is None) == (uv_texture is None):
    raise ValueError("give either vertex_colors or uv_texture")
  texture_type: TextureType
  if vertex_colors is not None and uv is None:
    textures, texture_type = (
      jnp.take(vertex_colors, jnp.asarray(faces), axis=-2, mode="clip"),
      "vertex",
    )
  elif uv_texture is not None and uv is not None:
    textures, texture_type = _texels(uv_texture, uv, faces, texels_per_side), "surface"
  else:
    raise ValueError("uv_texture and uv need each other")
  corners = camera_lib.face_vertices(camera_lib.project(vertices, camera), faces)
  if mode == "hard":
    return hard_rasterize(
      corners,
      textures,
      image_size=image_size,
      texture_type=texture_type,
      background=background,
      antialias=antialias,
    )
  return soft_rasterize(
    corners,
    textures,
    image_size=image_size,
    sigma=sigma,
    gamma=gamma,
    texture_type=texture_type,
    background=background,
    antialias=antialias,
  )


@checked
def hard_rasterize(
  face_vertices: Float[Array, "*B F 3 3"],
  textures: Float[Array, "*B F T C"],
  *,
  image_size: int | tuple[int, int],
  texture_type: TextureType = "surface",
  background: Scalar | Float[Array | np.ndarray, "C"] = 0.0,
  antialias: int = 3,
) -> Float[Array, "*B H W C1"]:
  """Draws each sample in the colour of the nearest face, and averages samples to smooth edges.

  Soft coverage would draw the edges between faces as faint lines: where an edge in front lies over
  one behind, as in side views of a symmetric object, it is below 1.

  Args:
    face_vertices: see `soft_silhouette`.
    textures: see `soft_rasterize`.
    image_size: side of the square image, or (height, width), in pixels.
    texture_type: what `textures` holds.
    background: colour where no sample is covered.
    antialias: samples of a pixel, each way.

  Returns:
    C channels of straight (not multiplied) colour, then the share of covered samples. Only
    `textures` get a gradient.
  """
  height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
  samples = (antialias * height, antialias * width)
  fragments = rasterize(
    face_vertices,
    textures,
    image_size=samples,
    sigma=_HARD_SIGMA / max(*samples, 1) ** 2,
    aggr_rgb="hard",
    near=_NEAR,
    far=_FAR,
    texture_type=texture_type,
  )
  covered = (fragments.face_ids >= 0).astype(jnp.float32)[..., None]
  blocks = (*face_vertices.shape[:-3], height, antialias, width, antialias)
  # Averaged as light, multiplied by alpha: uncovered samples would darken the edges.
  light = (fragments.rgba[..., :-1] * covered).reshape(*blocks, textures.shape[-1])
  light, alpha = (jnp.mean(v, axis=(-4, -2)) for v in (light, covered.reshape(*blocks, 1)))
  color = light / jnp.maximum(alpha, 0.5 / antialias**2)
  behind = jnp.broadcast_to(jnp.asarray(background, jnp.float32), color.shape)
  return jnp.concatenate([jnp.where(alpha > 0.0, color, behind), alpha], axis=-1)


def _texels(
  uv_texture: Array,
  uv: Array | np.ndarray,
  faces: Array | np.ndarray,
  texels_per_side: int,
) -> Array:
  """What each texel of each face reads from the map, [*B, F, T, C]."""
  if texels_per_side < 1:
    raise ValueError(f"texels_per_side must be positive, found {texels_per_side}")
  corners = jnp.asarray(uv, jnp.float32)
  if corners.ndim == 2:
    corners = jnp.take(corners, jnp.asarray(faces), axis=0, mode="clip")
  weights = texel_barycentrics(texels_per_side).astype(np.float32)
  points = jnp.einsum("tc,fcd->ftd", weights, corners)
  *batch, height, width, channels = uv_texture.shape
  # Held inside the outermost pixel centres: beyond them a look-up fades to zero.
  limit = 1.0 - 1.0 / np.array([width, height], np.float32)
  flat = jnp.clip(points.reshape(-1, 2), -limit[None], limit[None])
  flat = jnp.broadcast_to(flat, (*batch, *flat.shape))
  return bilinear_sample(uv_texture, flat).reshape(*batch, *points.shape[:2], channels)
