"""The rasterizer's settings as one value, and the images that it makes with them."""

import dataclasses
import math
from typing import Literal, NamedTuple, cast, get_args

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from umr_jax.render import derivative
from umr_jax.render.arguments import ArrayLike, check_shapes, read_array
from umr_jax.render.binning import Grid
from umr_jax.render.pairs import Settings
from umr_jax.render.silhouette import silhouette
from umr_jax.render.visibility import visible_faces

Scalar = float | int | np.floating | Float[Array | np.ndarray, ""]
Background = Scalar | Float[Array | np.ndarray, "C"] | list[float] | tuple[float, ...]
ImageSize = int | tuple[int, int]
DistanceFunction = Literal["euclidean", "barycentric"]
ColorAggregation = Literal["softmax", "hard"]
AlphaAggregation = Literal["prod", "sum"]
TextureType = Literal["surface", "vertex"]
# The options that are words, and which words they may be.
_WORDS: dict[str, tuple[str, ...]] = {
  "dist_func": get_args(DistanceFunction),
  "aggr_rgb": get_args(ColorAggregation),
  "aggr_alpha": get_args(AlphaAggregation),
  "texture_type": get_args(TextureType),
}


class Fragments(NamedTuple):
  """What `rasterize` returns. Only `rgba` is differentiable."""

  rgba: Float[Array, "*B H W C1"]
  face_ids: Int[Array, "*B H W"]  # the nearest face whose inside the pixel is on; -1 for none
  # Mean image-space position of the pixels that a face colours, weighted with its share of each
  # pixel's colour: the face's projected centroid; the origin if there are no such pixels.
  landing: Float[Array, "*B F 2"]
  visible: Bool[Array, "*B F"]  # whether the face is the nearest at one pixel at least


@dataclasses.dataclass(frozen=True, kw_only=True)
class RenderSettings:
  """All options of `soft_rasterize` in one value, which renders by its methods.

  The options mean what they mean there. A value without arrays is hashable and may be a static
  argument of `jax.jit`; sigma, gamma and background may also be traced arrays.

    settings = RenderSettings(image_size=64, sigma=1e-4)
    alpha = settings.soft_silhouette(face_vertices)
    rgba = dataclasses.replace(settings, antialias=2).soft_rasterize(face_vertices, textures)

  Raises:
    ValueError: when an option has no meaning.
  """

  image_size: ImageSize
  sigma: Scalar = 1e-5
  gamma: Scalar = 1e-4
  dist_func: DistanceFunction = "euclidean"
  dist_eps: float = 1e-4
  aggr_rgb: ColorAggregation = "softmax"
  aggr_alpha: AlphaAggregation = "prod"
  texture_type: TextureType = "surface"
  background: Background = 0.0
  near: float = 1.0
  far: float = 100.0
  eps: float = 1e-3
  double_sided: bool = True
  antialias: int = 1
  geometry_channels: tuple[bool, ...] | None = None

  def __post_init__(self) -> None:
    for name, words in _WORDS.items():
      if getattr(self, name) not in words:
        allowed = " or ".join(repr(word) for word in words)
        raise ValueError(f"{name} must be {allowed}, found {getattr(self, name)!r}")
    sides = self.image_size if isinstance(self.image_size, tuple) else (self.image_size,) * 2
    if len(sides) != 2 or not all(map(_is_whole, sides)):
      raise ValueError(
        "image_size must be a whole number of pixels, or two of them as (height, width), found "
        f"{self.image_size!r}"
      )
    if not _is_whole(self.antialias):
      raise ValueError(f"antialias must be a whole number, found {self.antialias!r}")
    for name, size in (("image_size", min(sides)), ("antialias", self.antialias)):
      if size < 1:
        raise ValueError(f"{name} must be positive, found {size}")
    for name, value in (("sigma", self.sigma), ("gamma", self.gamma)):
      if isinstance(value, int | float | np.floating) and not 0.0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, found {value}")
    if not 1e-30 <= self.dist_eps < 0.5:
      raise ValueError(f"dist_eps must lie in [1e-30, 0.5), found {self.dist_eps}")
    if not 0.0 < self.near < self.far:
      raise ValueError(f"expected 0 < near < far, found {self.near} and {self.far}")
    if not 0.0 <= self.eps < 1.0:
      raise ValueError(f"eps must lie in [0, 1), found {self.eps}")

  @property
  def height_and_width(self) -> tuple[int, int]:
    """Of the image, in pixels."""
    size = self.image_size
    return size if isinstance(size, tuple) else (size, size)

  def soft_silhouette(self, face_vertices: ArrayLike) -> Float[Array, "*B H W"]:
    """Alpha alone; see `render.soft_silhouette`. What concerns colour has no effect."""
    corners = read_array("face_vertices", face_vertices)
    check_shapes(face_vertices=(corners, "F 3 3"))
    image, faces = (*corners.shape[:-3], *self.height_and_width), _flat(corners, 3)
    if faces.size == 0:
      return jnp.zeros(image, jnp.float32)
    settings = Settings(
      self._grid(),
      dist_func=self.dist_func,
      dist_eps=self.dist_eps,
      aggr_alpha=self.aggr_alpha,
    )
    alpha = silhouette(settings, faces, jnp.asarray(self.sigma, jnp.float32))
    return _pool(alpha, self.antialias).reshape(image)

  def soft_rasterize(
    self,
    face_vertices: ArrayLike,
    textures: ArrayLike,
    *,
    color_vertices: ArrayLike | None = None,
  ) -> Float[Array, "*B H W C1"]:
    """Colour and alpha; see `render.soft_rasterize`.

    Args:
      face_vertices: corners of each face.
      textures: of each face.
      color_vertices: the corners that get colour's gradient.
    """
    rendered, lead = self._render(face_vertices, color_vertices, textures, fragments=False)
    image = _pool(rendered.rgba, self.antialias)
    return image.reshape(*lead, *image.shape[1:])

  def rasterize(
    self,
    face_vertices: ArrayLike,
    textures: ArrayLike,
    *,
    color_vertices: ArrayLike | None = None,
  ) -> Fragments:
    """Colour, alpha, nearest faces and projected centroids; see `render.rasterize`.

    Args:
      face_vertices: corners of each face.
      textures: of each face.
      color_vertices: the corners that get colour's gradient.
    """
    rendered, lead = self._render(face_vertices, color_vertices, textures, fragments=True)
    # Not None where fragments are asked for.
    parts = cast(tuple[Array, Array, Array], rendered[1:])
    face_ids, face_depth, projected_centroids = lax.stop_gradient(parts)
    num_faces = projected_centroids.shape[1]
    visible = visible_faces(face_ids, num_faces=num_faces)
    face_ids = _pool_ids(face_ids, face_depth, self.antialias)
    image = _pool(rendered.rgba, self.antialias)
    return Fragments(
      rgba=image.reshape(*lead, *image.shape[1:]),
      face_ids=face_ids.reshape(*lead, *face_ids.shape[1:]),
      landing=projected_centroids.reshape(*lead, num_faces, 2),
      visible=visible.reshape(*lead, num_faces),
    )

  def _grid(self) -> Grid:
    """The samples of an image, before they are averaged."""
    height, width = self.height_and_width
    return Grid(height * self.antialias, width * self.antialias)

  def _render(
    self,
    face_vertices: ArrayLike,
    color_vertices: ArrayLike | None,
    textures: ArrayLike,
    *,
    fragments: bool,
  ) -> tuple[derivative.Rendered, tuple[int, ...]]:
    """The raster of all samples, of flat float32 arrays; and the leading axes of the input."""
    corners, texels = read_array("face_vertices", face_vertices), read_array("textures", textures)
    by_color = corners if color_vertices is None else read_array("color_vertices", color_vertices)
    check_shapes(
      face_vertices=(corners, "F 3 3"),
      color_vertices=(by_color, "F 3 3"),
      textures=(texels, "F T C"),
    )
    self._check_textures(*texels.shape[-2:])
    background = self.background_color(texels.shape[-1])
    settings = Settings(
      self._grid(),
      dist_func=self.dist_func,
      dist_eps=self.dist_eps,
      aggr_rgb=self.aggr_rgb,
      aggr_alpha=self.aggr_alpha,
      texture_type=self.texture_type,
      near=float(self.near),
      far=float(self.far),
      eps=self.eps,
      double_sided=self.double_sided,
      fragments=fragments,
      geometry_channels=self.geometry_channels,
    )
    lead, faces = corners.shape[:-3], _flat(corners, 3)
    if faces.size == 0:
      return _empty_render(settings, faces.shape, background), lead
    sigma, gamma = (jnp.asarray(value, jnp.float32) for value in (self.sigma, self.gamma))
    rendered = derivative.render(
      settings, faces, _flat(by_color, 3), _flat(texels, 3), sigma, gamma, background
    )
    return rendered, lead

  def _check_textures(self, texels: int, channels: int) -> None:
    """Raises for numbers of texels or channels that the other options do not fit."""
    if channels == 0:
      raise ValueError("found textures of no channels; soft_silhouette renders alpha alone")
    if self.texture_type == "vertex" and texels != 3:
      raise ValueError(f"found textures with T = {texels}; texture_type 'vertex' needs T = 3")
    if self.texture_type == "surface" and math.isqrt(texels) ** 2 != texels:
      raise ValueError(
        f"found textures with T = {texels}; texture_type 'surface' needs a square, T = R * R"
      )
    chosen = self.geometry_channels
    if chosen is not None and len(chosen) != channels:
      raise ValueError(f"found {len(chosen)} geometry_channels for {channels} channels of textures")

  def background_color(self, channels: int) -> Float[Array, "C"]:
    """The colour behind all faces, one number for each channel."""
    background = jnp.asarray(self.background, jnp.float32)
    if background.shape not in ((), (channels,)):
      raise ValueError(f"background: found shape {background.shape}; expected () or ({channels},)")
    return jnp.broadcast_to(background, (channels,))


def _is_whole(value: object) -> bool:
  return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _empty_render(
  settings: Settings, shape: tuple[int, ...], background: Array
) -> derivative.Rendered:
  """The image of no faces, or of no images."""
  image = (shape[0], *settings.grid)
  return derivative.Rendered(
    rgba=jnp.broadcast_to(jnp.append(background, 0.0), (*image, background.shape[0] + 1)),
    face_ids=jnp.full(image, -1, jnp.int32),
    face_depth=jnp.full(image, jnp.inf, jnp.float32),
    projected_centroids=jnp.zeros((*shape[:2], 2), jnp.float32),
  )


def _flat(array: Array, trailing: int) -> Array:
  """One leading axis in place of any number of them; float32."""
  shape = array.shape[-trailing:]
  return array.astype(jnp.float32).reshape(math.prod(array.shape[:-trailing]), *shape)


def _pool(image: Array, factor: int) -> Array:
  """The mean over blocks of factor x factor samples of [B, H, W, ...]."""
  if factor == 1:
    return image
  batch, height, width = image.shape[:3]
  blocks = (batch, height // factor, factor, width // factor, factor, *image.shape[3:])
  return jnp.mean(image.reshape(blocks), axis=(2, 4))


def _pool_ids(face_ids: Array, depth: Array, factor: int) -> Array:
  """The face of the nearest sample of each block."""
  if factor == 1:
    return face_ids
  batch, height, width = face_ids.shape
  blocks = (batch, height // factor, factor, width // factor, factor)

  def samples(image: Array) -> Array:
    image = jnp.swapaxes(image.reshape(blocks), 2, 3)
    return image.reshape(*image.shape[:3], factor * factor)

  nearest = jnp.argmin(samples(depth), axis=-1)
  return jnp.take_along_axis(samples(face_ids), nearest[..., None], axis=-1)[..., 0]
