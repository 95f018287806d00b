"""Images of meshes: vertices, faces and a camera instead of arrays of projected faces."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from umr_jax.checking import checked
from umr_jax.geometry import camera as camera_lib
from umr_jax.geometry.sampling import bilinear_sample, texel_barycentrics
from umr_jax.render.arguments import ArrayLike, check_shapes, read_array, read_indices
from umr_jax.render.settings import Background, ImageSize, RenderSettings, Scalar, TextureType

# sigma of "hard", in squared samples: the support holds the faces on whose border a sample lies,
# and little more.
_HARD_SIGMA = 0.1
# Figures show whatever lies in front of the camera.
_NEAR, _FAR = 1e-12, 1e12


@checked
def render_mesh(
  vertices: ArrayLike,
  faces: ArrayLike,
  camera: ArrayLike,
  *,
  image_size: ImageSize,
  vertex_colors: ArrayLike | None = None,
  uv_texture: ArrayLike | None = None,
  uv: ArrayLike | None = None,
  texels_per_side: int = 6,
  mode: Literal["soft", "hard"] = "soft",
  sigma: Scalar = 1e-5,
  gamma: Scalar = 1e-4,
  background: Background = 0.0,
  antialias: int = 1,
) -> Float[Array, "*B H W C1"]:
  """Renders meshes under weak-perspective cameras, softly for training or hard for figures.

  Args:
    vertices: [*B, V, 3] in object space; any number of meshes with the same faces.
    faces: [F, 3], corners of each face.
    camera: [*B, 7], [scale, tx, ty, qw, qx, qy, qz] of each mesh; see `geometry.camera`. For any
      other camera, project the vertices yourself and give `soft_rasterize` their faces.
    image_size: side of the square image, or (height, width), in pixels.
    vertex_colors: [*B, V, C], any number of channels for each vertex, interpolated over faces.
    uv_texture: [*B, Hu, Wu, C], a texture map for each mesh, read bilinearly and continued beyond
      its borders; needs `uv`. Give either this or `vertex_colors`.
    uv: [V, 2] or [F, 3, 2], where on the map each vertex, or each corner of each face, reads: [-1,
      1] from the map's outer edge to its outer edge, y down. A file's u, v in [0, 1], v up, is 2 u
      - 1, 1 - 2 v.
    texels_per_side: a face reads the map at this number squared of places.
    mode: "soft" is `soft_rasterize`: gradients backpropagate to vertices, cameras and colours.
      "hard" shows the nearest face at each sample, covered or not; only colours get gradients.
    sigma: softness of outlines; for "soft".
    gamma: softness of occlusion; for "soft".
    background: colour where no face is.
    antialias: renders at this multiple of `image_size` and averages.

  Returns:
    C channels of colour, not multiplied with alpha, then alpha.

  Raises:
    ValueError: unless exactly one of `vertex_colors` and `uv_texture` is given, the latter with
      `uv`; or when an option has no meaning, an array another shape, or `faces` a vertex that does
      not exist (of traced indices that is not known: they are clipped).
  """
  vertices, camera = read_array("vertices", vertices), read_array("camera", camera)
  corner_ids = read_indices("faces", faces)
  check_shapes(vertices=(vertices, "V 3"), camera=(camera, "7"), faces=(corner_ids, "=F 3"))
  _check_faces(faces, vertices.shape[-2])
  textures, texture_type = _mesh_textures(
    vertices, corner_ids, vertex_colors, uv_texture, uv, texels_per_side
  )
  corners = camera_lib.project_faces(vertices, camera, corner_ids)
  if mode == "hard":
    return hard_rasterize(
      corners,
      textures,
      image_size=image_size,
      texture_type=texture_type,
      background=background,
      antialias=antialias,
    )
  settings = RenderSettings(
    image_size=image_size,
    sigma=sigma,
    gamma=gamma,
    texture_type=texture_type,
    background=background,
    antialias=antialias,
  )
  return settings.soft_rasterize(corners, textures)


@checked
def hard_rasterize(
  face_vertices: ArrayLike,
  textures: ArrayLike,
  *,
  image_size: ImageSize,
  texture_type: TextureType = "surface",
  background: Background = 0.0,
  antialias: int = 3,
) -> Float[Array, "*B H W C1"]:
  """Renders each sample in the colour of the nearest face, and averages samples to smooth edges.

  Soft coverage would show the edges between faces as faint lines: where an edge in front lies over
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
  settings = RenderSettings(
    image_size=image_size, texture_type=texture_type, background=background, antialias=antialias
  )
  height, width = settings.height_and_width
  samples = (antialias * height, antialias * width)
  fragments = dataclasses.replace(
    settings,
    image_size=samples,
    sigma=_HARD_SIGMA / max(samples) ** 2,
    aggr_rgb="hard",
    background=0.0,
    near=_NEAR,
    far=_FAR,
    antialias=1,
  ).rasterize(face_vertices, textures)
  covered = (fragments.face_ids >= 0).astype(jnp.float32)[..., None]
  *batch, _, _, channels = fragments.rgba.shape
  blocks = (*batch, height, antialias, width, antialias)
  # Averaged as light, multiplied by alpha: uncovered samples would darken the edges.
  light = (fragments.rgba[..., :-1] * covered).reshape(*blocks, channels - 1)
  light, alpha = (jnp.mean(v, axis=(-4, -2)) for v in (light, covered.reshape(*blocks, 1)))
  color = light / jnp.maximum(alpha, 0.5 / antialias**2)
  behind = jnp.broadcast_to(settings.background_color(channels - 1), color.shape)
  return jnp.concatenate([jnp.where(alpha > 0.0, color, behind), alpha], axis=-1)


def _check_faces(faces: ArrayLike, num_vertices: int) -> None:
  """Raises for faces, as they were given, with a corner that is not a vertex."""
  if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(faces)):
    return
  indices = np.asarray(faces)
  wrong = indices[(indices < 0) | (indices >= num_vertices)]
  if wrong.size:
    raise ValueError(f"faces name vertex {wrong[0]} of {num_vertices}; indices begin at 0")


def _mesh_textures(
  vertices: Array,
  faces: Array,
  vertex_colors: ArrayLike | None,
  uv_texture: ArrayLike | None,
  uv: ArrayLike | None,
  texels_per_side: int,
) -> tuple[Array, TextureType]:
  """The textures of a mesh's faces, and of which type they are."""
  if (vertex_colors is None) == (uv_texture is None):
    raise ValueError("give either vertex_colors or uv_texture")
  if vertex_colors is not None and uv is None:
    colors = read_array("vertex_colors", vertex_colors)
    check_shapes(vertices=(vertices, "V 3"), vertex_colors=(colors, "V C"))
    return jnp.take(colors, faces, axis=-2, mode="clip"), "vertex"
  if uv_texture is not None and uv is not None:
    texture, positions = read_array("uv_texture", uv_texture), read_array("uv", uv)
    check_shapes(
      vertices=(vertices, "V 3"),
      faces=(faces, "=F 3"),
      uv_texture=(texture, "Hu Wu C"),
      uv=(positions, "=V 2" if positions.ndim == 2 else "=F 3 2"),
    )
    return _texels(texture, positions, faces, texels_per_side), "surface"
  raise ValueError("uv_texture and uv need each other")


def _texels(
  uv_texture: Array, uv: Array, faces: Array, texels_per_side: int
) -> Float[Array, "*B F T C"]:
  """What each texel of each face reads from the map."""
  if texels_per_side < 1:
    raise ValueError(f"texels_per_side must be positive, found {texels_per_side}")
  corners = jnp.asarray(uv, jnp.float32)
  if corners.ndim == 2:
    corners = jnp.take(corners, faces, axis=0, mode="clip")
  weights = texel_barycentrics(texels_per_side).astype(np.float32)
  points = jnp.einsum("tc,fcd->ftd", weights, corners)
  *batch, height, width, channels = uv_texture.shape
  # Held inside the outermost pixel centres: beyond them a look-up fades to zero.
  limit = 1.0 - 1.0 / np.array([width, height], np.float32)
  flat = jnp.clip(points.reshape(-1, 2), -limit[None], limit[None])
  flat = jnp.broadcast_to(flat, (*batch, *flat.shape))
  return bilinear_sample(uv_texture, flat).reshape(*batch, *points.shape[:2], channels)
