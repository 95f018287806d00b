"""The public rasterizer: soft images of triangle meshes, differentiable and batched."""

import math
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from umr_jax.checking import checked
from umr_jax.render import derivative
from umr_jax.render.aggregate import Settings
from umr_jax.render.binning import Grid
from umr_jax.render.pooling import pool, pool_ids
from umr_jax.render.visibility import visible_faces

Scalar = float | int | Float[Array, ""]
TextureType = Literal["surface", "vertex"]


class Fragments(NamedTuple):
  """What `rasterize` returns. Only `rgba` is differentiable."""

  rgba: Float[Array, "*B H W C1"]
  face_ids: Int[Array, "*B H W"]  # the nearest face whose inside the pixel is on; -1 for none
  # Mean image-space position of the pixels that a face colours; the origin if there are none.
  landing: Float[Array, "*B F 2"]
  visible: Bool[Array, "*B F"]  # whether the face wins at least one pixel


@checked
def soft_silhouette(
  face_vertices: Float[Array, "*B F 3 3"],
  *,
  image_size: int | tuple[int, int],
  sigma: Scalar = 1e-5,
  dist_eps: float = 1e-4,
  antialias: int = 1,
) -> Float[Array, "*B H W"]:
  """Draws soft silhouettes: how surely each pixel is covered, with gradients to far pixels, too.

  A face covers a pixel with D = sigmoid(+-d^2 / sigma), d being the distance from the pixel's
  centre to the face's outline, positive inside; alpha = 1 - prod(1 - D) over all faces.

  Args:
    face_vertices: corners of each face: x right, y down, both in [-1, 1] to the outer pixel edges,
      and depth z > 0, smaller is nearer. A face with a corner at z <= 0 or with a coordinate that
      is not finite is not drawn and gets no gradient.
    image_size: side of the square image, or (height, width), in pixels.
    sigma: softness, in squared image-space units; may be traced and differentiated.
    dist_eps: a face is ignored where it is farther than the distance at which D falls to this.
    antialias: renders at this multiple of `image_size` and averages.

  Returns:
    Alpha in [0, 1]. Its gradient reaches x and y of the corners, and sigma (with the distance
    at which faces are ignored held fixed).

  Raises:
    ValueError: when an option has no meaning.

  Source: Liu et al. 2019, "Soft Rasterizer", sections 3.2 and 3.3.
  """
  settings = _settings(image_size, antialias, sigma=sigma, dist_eps=dist_eps)
  lead = face_vertices.shape[:-3]
  faces = _flat(face_vertices, 3)
  if faces.size == 0:
    return jnp.zeros((*lead, *_size(image_size)), jnp.float32)
  alpha = derivative.silhouette(settings, faces, jnp.asarray(sigma, jnp.float32))
  return pool(alpha, antialias).reshape(*lead, *_size(image_size))


@checked
def soft_rasterize(
  face_vertices: Float[Array, "*B F 3 3"],
  textures: Float[Array, "*B F T C"],
  *,
  image_size: int | tuple[int, int],
  sigma: Scalar = 1e-5,
  gamma: Scalar = 1e-4,
  dist_func: Literal["euclidean", "barycentric"] = "euclidean",
  dist_eps: float = 1e-4,
  aggr_rgb: Literal["softmax", "hard"] = "softmax",
  aggr_alpha: Literal["prod", "sum"] = "prod",
  texture_type: TextureType = "surface",
  background: Scalar | Float[Array | np.ndarray, "C"] = 0.0,
  near: float | int = 1.0,
  far: float | int = 100.0,
  eps: float = 1e-3,
  double_sided: bool = True,
  antialias: int = 1,
  color_vertices: Float[Array, "*B F 3 3"] | None = None,
  geometry_channels: tuple[bool, ...] | None = None,
) -> Float[Array, "*B H W C1"]:
  """Draws textured meshes softly, in any number of channels, with SoftRas's values and gradients.

  Args:
    face_vertices: see `soft_silhouette`.
    textures: per face R x R texels ("surface"), where texel v R + u of a face covers a triangular
      cell of its barycentric grid, or the colours of its three corners ("vertex").
    image_size: side of the square image, or (height, width), in pixels.
    sigma: softness of outlines, in squared image-space units.
    gamma: softness of occlusion, as a share of the depth range near..far.
    dist_func: distance to a face: "euclidean" in the image, or "barycentric".
    dist_eps: a face is ignored where it is farther than the distance at which D falls to this.
    aggr_rgb: "softmax" blends faces by depth, "hard" takes the nearest.
    aggr_alpha: "prod" for 1 - prod(1 - D), "sum" for the sum of D over the number of faces.
    texture_type: what `textures` holds.
    background: colour where no face is, one for all channels or one each.
    near: faces nearer than this have no colour, and give no gradient there.
    far: faces farther than this likewise.
    eps: least normalised depth; with gamma it sets the weight of the background.
    double_sided: False hides, in colour alone, the faces whose corners run anticlockwise as seen
      on the screen. That is SoftRas's rule, whose images are mirrored: a mesh wound outward and
      projected by `geometry.camera` shows its far side, unless its faces are reversed.
    antialias: renders at this multiple of `image_size` and averages.
    color_vertices: the corners that get colour's gradient, while `face_vertices` get alpha's; their
      values are not read. With `jax.lax.stop_gradient(face_vertices)` colour teaches no geometry.
    geometry_channels: the channels of colour whose gradient reaches corners, sigma and gamma; all
      by default. Textures get the gradient of every channel.

  Returns:
    C channels of colour, not multiplied with alpha, then alpha. sigma, gamma and background may be
    traced, and everything that is traced can be differentiated. The gradient is the one of the
    SoftRas kernel: a pixel's place within a face, and with it the texel that it reads and the
    depth that it sees, does not depend on x and y of the corners.

  Raises:
    ValueError: when an option has no meaning or `textures` has no fitting number of texels.

  Source: Liu et al. 2019, "Soft Rasterizer", section 3; with the clipped barycentric weights of
  the kernel of Li et al. 2020.
  """
  settings = _settings(
    image_size,
    antialias,
    sigma=sigma,
    gamma=gamma,
    dist_func=dist_func,
    dist_eps=dist_eps,
    aggr_rgb=aggr_rgb,
    aggr_alpha=aggr_alpha,
    texture_type=texture_type,
    near=float(near),
    far=float(far),
    eps=eps,
    double_sided=double_sided,
    geometry_channels=geometry_channels,
  )
  rendered = _render(settings, face_vertices, color_vertices, textures, sigma, gamma, background)
  return _rgba(rendered, antialias, face_vertices.shape[:-3])


@checked
def rasterize(
  face_vertices: Float[Array, "*B F 3 3"],
  textures: Float[Array, "*B F T C"],
  *,
  image_size: int | tuple[int, int],
  sigma: Scalar = 1e-5,
  gamma: Scalar = 1e-4,
  dist_func: Literal["euclidean", "barycentric"] = "euclidean",
  dist_eps: float = 1e-4,
  aggr_rgb: Literal["softmax", "hard"] = "softmax",
  aggr_alpha: Literal["prod", "sum"] = "prod",
  texture_type: TextureType = "surface",
  background: Scalar | Float[Array | np.ndarray, "C"] = 0.0,
  near: float | int = 1.0,
  far: float | int = 100.0,
  eps: float = 1e-3,
  double_sided: bool = True,
  antialias: int = 1,
  color_vertices: Float[Array, "*B F 3 3"] | None = None,
  geometry_channels: tuple[bool, ...] | None = None,
) -> Fragments:
  """`soft_rasterize`, and in the same call which face is in front and where each face lands.

  Args are those of `soft_rasterize`. With "softmax" a face's landing place is the mean of all pixel
  positions, weighted with the face's share of each pixel's colour; with "hard" it is the mean of
  the pixels that the face wins. With `antialias` a pixel's face is the nearest of its samples'
  faces; landing places and visibility are taken from all samples.

  Returns:
    The image, and per pixel and per face what texture cycle consistency needs, without gradient.

  Source: Li et al. 2020, section 3.3. Departs: the weights are the normalised softmax weights, as
  the paper writes, where the released kernel uses the maximum over the faces visited so far.
  """
  settings = _settings(
    image_size,
    antialias,
    sigma=sigma,
    gamma=gamma,
    dist_func=dist_func,
    dist_eps=dist_eps,
    aggr_rgb=aggr_rgb,
    aggr_alpha=aggr_alpha,
    texture_type=texture_type,
    near=float(near),
    far=float(far),
    eps=eps,
    double_sided=double_sided,
    geometry_channels=geometry_channels,
    fragments=True,
  )
  lead, num_faces = face_vertices.shape[:-3], face_vertices.shape[-3]
  rendered = _render(settings, face_vertices, color_vertices, textures, sigma, gamma, background)
  face_ids, face_depth, landing = lax.stop_gradient(rendered[1:])
  visible = visible_faces(face_ids, num_faces=num_faces)
  face_ids = pool_ids(face_ids, face_depth, antialias)
  return Fragments(
    rgba=_rgba(rendered, antialias, lead),
    face_ids=face_ids.reshape(*lead, *face_ids.shape[1:]),
    landing=landing.reshape(*lead, num_faces, 2),
    visible=visible.reshape(*lead, num_faces),
  )


def _render(
  settings: Settings,
  face_vertices: Array,
  color_vertices: Array | None,
  textures: Array,
  sigma: Scalar,
  gamma: Scalar,
  background: Scalar | Array | np.ndarray,
) -> derivative.Rendered:
  """Checks the textures and calls the differentiable core on flat, float32 arrays."""
  texels, channels = textures.shape[-2:]
  if channels == 0:
    raise ValueError("found textures of no channels; soft_silhouette draws alpha alone")
  if settings.texture_type == "vertex" and texels != 3:
    raise ValueError(f"found textures with T = {texels}; texture_type 'vertex' needs T = 3")
  if settings.texture_type == "surface" and math.isqrt(texels) ** 2 != texels:
    raise ValueError(
      f"found textures with T = {texels}; texture_type 'surface' needs a square, T = R * R"
    )
  chosen = settings.geometry_channels
  if chosen is not None and len(chosen) != channels:
    raise ValueError(f"found {len(chosen)} geometry_channels for {channels} channels of textures")
  background = jnp.broadcast_to(jnp.asarray(background, jnp.float32), (channels,))
  color_vertices = _flat(face_vertices if color_vertices is None else color_vertices, 3)
  face_vertices, textures = _flat(face_vertices, 3), _flat(textures, 3)
  if face_vertices.size == 0:
    return _nothing(settings, face_vertices.shape, background)
  sigma, gamma = jnp.asarray(sigma, jnp.float32), jnp.asarray(gamma, jnp.float32)
  return derivative.render(
    settings, face_vertices, color_vertices, textures, sigma, gamma, background
  )


def _nothing(settings: Settings, shape: tuple[int, ...], background: Array) -> derivative.Rendered:
  """The image of no faces, or of no images."""
  image = (shape[0], *settings.grid)
  return derivative.Rendered(
    rgba=jnp.broadcast_to(jnp.append(background, 0.0), (*image, background.shape[0] + 1)),
    face_ids=jnp.full(image, -1, jnp.int32),
    face_depth=jnp.full(image, jnp.inf, jnp.float32),
    landing=jnp.zeros((*shape[:2], 2), jnp.float32),
  )


def _settings(image_size: int | tuple[int, int], antialias: int, **options: Any) -> Settings:
  """Checks the options and gathers those to which a compiled rasterizer is specialised."""
  height, width = _size(image_size)
  for name, value in (("image_size", height), ("image_size", width), ("antialias", antialias)):
    if value < 1:
      raise ValueError(f"{name} must be positive, found {value}")
  for name in ("sigma", "gamma"):
    value = options.pop(name, None)
    if isinstance(value, int | float) and not 0.0 < value < math.inf:
      raise ValueError(f"{name} must be positive and finite, found {value}")
  settings = Settings(Grid(height * antialias, width * antialias), **options)
  if not 1e-30 <= settings.dist_eps < 0.5:
    raise ValueError(f"dist_eps must lie in [1e-30, 0.5), found {settings.dist_eps}")
  if not 0.0 < settings.near < settings.far:
    raise ValueError(f"expected 0 < near < far, found {settings.near} and {settings.far}")
  return settings


def _size(image_size: int | tuple[int, int]) -> tuple[int, int]:
  return (image_size, image_size) if isinstance(image_size, int) else image_size


def _flat(array: Array, trailing: int) -> Array:
  """One leading axis in place of any number of them; float32."""
  shape = array.shape[-trailing:]
  return array.astype(jnp.float32).reshape(math.prod(array.shape[:-trailing]), *shape)


def _rgba(rendered: derivative.Rendered, antialias: int, lead: tuple[int, ...]) -> Array:
  image = pool(rendered.rgba, antialias)
  return image.reshape(*lead, *image.shape[1:])
