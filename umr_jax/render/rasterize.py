"""The public rasterizer: soft images of triangle meshes, differentiable and batched."""

from jaxtyping import Array, Float

from umr_jax.checking import checked
from umr_jax.render.arguments import ArrayLike
from umr_jax.render.settings import (
  AlphaAggregation,
  Background,
  ColorAggregation,
  DistanceFunction,
  Fragments,
  ImageSize,
  RenderSettings,
  Scalar,
  TextureType,
)


@checked
def soft_silhouette(
  face_vertices: ArrayLike,
  *,
  image_size: ImageSize,
  sigma: Scalar = 1e-5,
  dist_eps: float = 1e-4,
  antialias: int = 1,
) -> Float[Array, "*B H W"]:
  """Renders soft silhouettes: how far each pixel is covered, with gradients from far pixels, too.

  A face covers a pixel with D = sigmoid(+-d^2 / sigma), d being the distance from the pixel's
  centre to the face's outline, positive inside; alpha = 1 - prod(1 - D) over all faces.

  Args:
    face_vertices: corners [*B, F, 3, xyz] of each face: x right, y down, both in [-1, 1] to the
      outer pixel edges, and depth z > 0, smaller is nearer. A face with a corner at z <= 0 or with
      a coordinate that is not finite is not rendered and gets no gradient.
    image_size: side of the square image, or (height, width), in pixels.
    sigma: softness, in squared image-space units; may be traced and differentiated.
    dist_eps: a face is ignored where it is farther than the distance at which D falls to this.
    antialias: renders at this multiple of `image_size` and averages.

  Returns:
    Alpha in [0, 1]. Its gradient backpropagates to x and y of the corners, and to sigma (with the
    distance at which faces are ignored held fixed).

  Raises:
    ValueError: when an option has no meaning, or an array another shape; in one sentence.

  Source: Liu et al. 2019, "Soft Rasterizer", sections 3.2 and 3.3.
  """
  settings = RenderSettings(
    image_size=image_size, sigma=sigma, dist_eps=dist_eps, antialias=antialias
  )
  return settings.soft_silhouette(face_vertices)


@checked
def soft_rasterize(
  face_vertices: ArrayLike,
  textures: ArrayLike,
  *,
  image_size: ImageSize,
  sigma: Scalar = 1e-5,
  gamma: Scalar = 1e-4,
  dist_func: DistanceFunction = "euclidean",
  dist_eps: float = 1e-4,
  aggr_rgb: ColorAggregation = "softmax",
  aggr_alpha: AlphaAggregation = "prod",
  texture_type: TextureType = "surface",
  background: Background = 0.0,
  near: float | int = 1.0,
  far: float | int = 100.0,
  eps: float = 1e-3,
  double_sided: bool = True,
  antialias: int = 1,
  color_vertices: ArrayLike | None = None,
  geometry_channels: tuple[bool, ...] | None = None,
) -> Float[Array, "*B H W C1"]:
  """Renders textured meshes softly, in any number of channels, with SoftRas's values and gradients.

  Args:
    face_vertices: see `soft_silhouette`.
    textures: [*B, F, T, C], per face R x R texels ("surface"), where texel v R + u of a face covers
      a triangular cell of its barycentric grid, or the colours of its three corners ("vertex").
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
    double_sided: False hides, in colour alone, the faces whose corners run anticlockwise on
      the screen. That is SoftRas's rule, whose images are mirrored: a mesh wound outward and
      projected by `geometry.camera` shows its far side, unless its faces are reversed.
    antialias: renders at this multiple of `image_size` and averages.
    color_vertices: the corners that get colour's gradient, while `face_vertices` get alpha's; their
      values are not read. With `jax.lax.stop_gradient(face_vertices)` colour moves no geometry.
    geometry_channels: the channels of colour that backpropagate to corners, sigma and gamma; all by
      default. Textures get the gradient of every channel.

  Returns:
    C channels of colour, not multiplied with alpha, then alpha. sigma, gamma and background may be
    traced, and everything that is traced can be differentiated. The gradient is the one of the
    SoftRas kernel: a pixel's place within a face, and with it the texel that it reads and its
    depth, does not depend on x and y of the corners.

  Raises:
    ValueError: when an option has no meaning, `textures` has no fitting number of texels, or an
      array another shape; in one sentence.

  Source: Liu et al. 2019, "Soft Rasterizer", section 3; with the clipped barycentric weights of
  the kernel of Li et al. 2020.
  """
  settings = RenderSettings(
    image_size=image_size,
    sigma=sigma,
    gamma=gamma,
    dist_func=dist_func,
    dist_eps=dist_eps,
    aggr_rgb=aggr_rgb,
    aggr_alpha=aggr_alpha,
    texture_type=texture_type,
    background=background,
    near=near,
    far=far,
    eps=eps,
    double_sided=double_sided,
    antialias=antialias,
    geometry_channels=geometry_channels,
  )
  return settings.soft_rasterize(face_vertices, textures, color_vertices=color_vertices)


@checked
def rasterize(
  face_vertices: ArrayLike,
  textures: ArrayLike,
  *,
  image_size: ImageSize,
  sigma: Scalar = 1e-5,
  gamma: Scalar = 1e-4,
  dist_func: DistanceFunction = "euclidean",
  dist_eps: float = 1e-4,
  aggr_rgb: ColorAggregation = "softmax",
  aggr_alpha: AlphaAggregation = "prod",
  texture_type: TextureType = "surface",
  background: Background = 0.0,
  near: float | int = 1.0,
  far: float | int = 100.0,
  eps: float = 1e-3,
  double_sided: bool = True,
  antialias: int = 1,
  color_vertices: ArrayLike | None = None,
  geometry_channels: tuple[bool, ...] | None = None,
) -> Fragments:
  """`soft_rasterize`, and in the same call the nearest faces and the faces' projected centroids.

  Args:
    face_vertices, textures and all options: those of `soft_rasterize`. With "softmax" a face's
      projected centroid (`landing`) is the mean of all pixel positions, weighted with the face's
      share of each pixel's colour; with "hard" it is the mean of the pixels at which the face is
      nearest. With `antialias` a pixel's face is the nearest of its samples' faces; projected
      centroids and visibility are taken from all samples.

  Returns:
    The image, and per pixel and per face what texture cycle consistency needs, without gradient.

  Source: Li et al. 2020, section 3.3. Departs: the weights are the normalised softmax weights, as
  the paper writes, where the released kernel uses the maximum over the faces visited so far.
  """
  settings = RenderSettings(
    image_size=image_size,
    sigma=sigma,
    gamma=gamma,
    dist_func=dist_func,
    dist_eps=dist_eps,
    aggr_rgb=aggr_rgb,
    aggr_alpha=aggr_alpha,
    texture_type=texture_type,
    background=background,
    near=near,
    far=far,
    eps=eps,
    double_sided=double_sided,
    antialias=antialias,
    geometry_channels=geometry_channels,
  )
  return settings.rasterize(face_vertices, textures, color_vertices=color_vertices)
