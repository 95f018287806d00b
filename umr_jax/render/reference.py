"""The rasterizer as a slow reference: plain NumPy, float64, one image, one face at a time.

This is what the fast rasterizer is tested against, values and gradients. It shares no code with
it, follows the order of SoftRas's kernel, and can be read beside the paper.

Source: Liu et al. 2019, "Soft Rasterizer", section 3.
"""

from typing import NamedTuple

import numpy as np

from umr_jax.geometry.sampling import axis_centers


class Options(NamedTuple):
  """The options of `soft_rasterize`, under the same names."""

  image_size: tuple[int, int]
  sigma: float = 1e-5
  gamma: float = 1e-4
  dist_func: str = "euclidean"
  dist_eps: float = 1e-4
  aggr_rgb: str = "softmax"
  aggr_alpha: str = "prod"
  texture_type: str = "surface"
  background: float | np.ndarray = 0.0
  near: float = 1.0
  far: float = 100.0
  eps: float = 1e-3
  double_sided: bool = True


class Image(NamedTuple):
  """What `rasterize` returns, for one image."""

  rgba: np.ndarray  # [H, W, C + 1]
  face_ids: np.ndarray  # [H, W]
  projected_centroids: np.ndarray  # [F, 2]
  visible: np.ndarray  # [F]


class _Face(NamedTuple):
  """One face at every pixel; arrays [H, W]."""

  value: np.ndarray  # signed distance over sigma
  coverage: np.ndarray  # D
  in_support: np.ndarray
  in_range: np.ndarray
  blended: np.ndarray
  hit: np.ndarray
  weights: np.ndarray  # [3, H, W] clipped barycentric
  depth: np.ndarray
  partials: np.ndarray  # [3, 2, H, W]: d(value) / d(corner)
  texels: np.ndarray  # [T, H, W]: how much of each texel a pixel shows


def pixel_centers(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
  """Image-space x and y [H, W] of all pixel centres.

  Args:
    height: in pixels.
    width: in pixels.
  """
  return tuple(np.meshgrid(axis_centers(width), axis_centers(height)))


def render(face_vertices: np.ndarray, textures: np.ndarray, options: Options) -> Image:
  """Renders one image.

  Args:
    face_vertices: [F, 3, 3] corners in image space.
    textures: [F, T, C].
    options: see `soft_rasterize`.
  """
  faces = _faces(face_vertices, textures.shape[1], options)
  x, y = pixel_centers(*options.image_size)
  alpha, color, shares = _blend(faces, textures, options)
  ids = _nearest_faces(faces, options)
  projected_centroids = np.zeros((len(faces), 2))
  for f, face in enumerate(faces):
    if face is None:
      continue
    share = (ids == f).astype(float) if options.aggr_rgb == "hard" else shares[f]
    if share.sum() > 0.0:
      projected_centroids[f] = (share * x).sum() / share.sum(), (share * y).sum() / share.sum()
  visible = np.array([(ids == f).any() for f in range(len(faces))], bool)
  return Image(
    np.concatenate([color, alpha[..., None]], axis=-1), ids, projected_centroids, visible
  )


def gradients(
  face_vertices: np.ndarray, textures: np.ndarray, cotangent: np.ndarray, options: Options
) -> tuple[np.ndarray, np.ndarray]:
  """SoftRas's gradient of sum(cotangent * rgba) on the corners and on the texels.

  Args:
    face_vertices: [F, 3, 3] corners in image space.
    textures: [F, T, C].
    cotangent: [H, W, C + 1].
    options: see `soft_rasterize`.
  """
  faces = _faces(face_vertices, textures.shape[1], options)
  _, color, shares = _blend(faces, textures, options)
  ids = _nearest_faces(faces, options)
  on_color, on_alpha = cotangent[..., :-1], cotangent[..., -1]
  on_faces, on_textures = np.zeros(face_vertices.shape), np.zeros(textures.shape)
  for f, face in enumerate(faces):
    if face is None:
      continue
    rest = 1.0 - face.coverage
    if options.aggr_alpha == "sum":
      cotangent = on_alpha / len(faces) * face.coverage * rest
    else:
      others = _transmittance(faces, options, skip=f)
      cotangent = on_alpha * others * face.coverage * rest
    cotangent = np.where(face.in_range, cotangent, 0.0)
    if options.aggr_rgb == "hard":
      weighted = np.where((ids == f)[..., None], on_color, 0.0)
    else:
      weighted = shares[f][..., None] * on_color
      own = np.einsum("thw,tc->hwc", face.texels, textures[f])
      k = (weighted * (own - color)).sum(axis=-1)
      cotangent = cotangent + np.where(face.blended, k * rest, 0.0)
      on_depth = k / (options.gamma * (options.near - options.far))
      for i, depth in enumerate(face_vertices[f, :, 2]):
        bend = face.weights[i] * (face.depth / depth) ** 2
        on_faces[f, i, 2] = np.where(face.blended, on_depth * bend, 0.0).sum()
    on_textures[f] = np.einsum("thw,hwc->tc", face.texels, weighted)
    on_faces[f, :, :2] = (cotangent * face.partials).sum(axis=(-2, -1))
  return on_faces, on_textures


def _faces(face_vertices: np.ndarray, texels: int, options: Options) -> list[_Face | None]:
  return [_face(corners.astype(float), texels, options) for corners in face_vertices]


def _face(corners: np.ndarray, texels: int, options: Options) -> _Face | None:
  if not np.isfinite(corners).all() or (corners[:, 2] <= 0.0).any():
    return None
  x, y = pixel_centers(*options.image_size)
  (x0, y0), (x1, y1), (x2, y2) = corners[:, :2]
  determinant = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
  if abs(determinant) < 1e-10:
    determinant = -1e-10 if determinant < 0.0 else 1e-10
  raw = np.stack(
    [
      ((x2 - x1) * (y - y1) - (y2 - y1) * (x - x1)) / determinant,
      ((x0 - x2) * (y - y2) - (y0 - y2) * (x - x2)) / determinant,
      ((x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)) / determinant,
    ]
  )
  inside = np.all((raw > 0.0) & (raw < 1.0), axis=0)
  squared, gradient = (
    _euclidean(corners[:, :2], x, y, inside)
    if options.dist_func == "euclidean"
    else _barycentric(corners[:, :2], raw, determinant)
  )
  limit = options.sigma * np.log(1.0 / options.dist_eps - 1.0)
  radius = np.sqrt(limit)
  low, high = corners[:, :2].min(axis=0) - radius, corners[:, :2].max(axis=0) + radius
  boxed = (x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1])
  in_support = boxed & (inside | (-squared < limit))
  weights = np.clip(raw, 1e-5, 1.0 - 1e-5)
  weights /= weights.sum(axis=0)
  depth = 1.0 / (weights / corners[:, 2, None, None]).sum(axis=0)
  in_range = in_support & (depth >= options.near) & (depth <= options.far)
  front = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0) > 0.0
  blended = in_range if options.double_sided or front else np.zeros_like(in_range)
  hit = blended & (raw >= 0.0).all(axis=0) & (raw <= 1.0).all(axis=0)
  value = squared / options.sigma
  with np.errstate(over="ignore"):
    coverage = np.where(in_support, 1.0 / (1.0 + np.exp(-value)), 0.0)
  return _Face(
    value, coverage, in_support, in_range, blended, hit, weights, depth,
    gradient / options.sigma, _texels(weights, texels, options.texture_type),
  )  # fmt: skip


def _euclidean(
  corners: np.ndarray, x: np.ndarray, y: np.ndarray, inside: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Signed squared distance to the outline, and its partial derivatives in the corners."""
  sign = np.where(inside, 1.0, -1.0)
  best = np.full(x.shape, np.inf)
  gradient = np.zeros((3, 2, *x.shape))
  for i in range(3):
    a, edge = corners[i], corners[(i + 1) % 3] - corners[i]
    along = ((x - a[0]) * edge[0] + (y - a[1]) * edge[1]) / max(edge @ edge, 1e-20)
    along = np.clip(along, 0.0, 1.0)
    closest = np.stack([a[0] + along * edge[0] - x, a[1] + along * edge[1] - y])
    squared = (closest**2).sum(axis=0)
    here = np.zeros_like(gradient)
    here[i] = 2.0 * sign * closest * (1.0 - along)
    here[(i + 1) % 3] = 2.0 * sign * closest * along
    gradient = np.where(squared < best, here, gradient)
    best = np.minimum(squared, best)
  return sign * best, gradient


def _barycentric(
  corners: np.ndarray, raw: np.ndarray, determinant: float
) -> tuple[np.ndarray, np.ndarray]:
  """Signed square of the least barycentric weight, and its partial derivatives in the corners."""
  least, argument = raw.min(axis=0), raw.argmin(axis=0)
  gradient = np.zeros((3, 2, *least.shape))
  for k in range(3):
    edge = corners[(k + 2) % 3] - corners[(k + 1) % 3]
    uphill = np.array([-edge[1], edge[0]]) / determinant
    here = -raw[:, None] * uphill[None, :, None, None]
    gradient = np.where(argument == k, here, gradient)
  return np.sign(least) * least**2, 2.0 * np.abs(least) * gradient


def _texels(weights: np.ndarray, texels: int, texture_type: str) -> np.ndarray:
  """[T, H, W]: how much of each texel each pixel shows."""
  if texture_type == "vertex":
    return weights
  side = round(np.sqrt(texels))
  u, v = np.floor(weights[0] * side).astype(int), np.floor(weights[1] * side).astype(int)
  lower = (weights[0] + weights[1]) * side - u - v <= 1.0
  index = np.where(lower, v * side + u, (side - 1 - v) * side + (side - 1 - u))
  return (np.arange(texels)[:, None, None] == index).astype(float)


def _transmittance(faces: list[_Face | None], options: Options, skip: int = -1) -> np.ndarray:
  transmittance = np.ones(options.image_size)
  for f, face in enumerate(faces):
    if face is not None and f != skip:
      transmittance = transmittance * (1.0 - face.coverage)
  return transmittance


def _blend(
  faces: list[_Face | None], textures: np.ndarray, options: Options
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
  """Alpha, colour, and the normalised weight of each face at each pixel."""
  if options.aggr_alpha == "sum":
    total = np.zeros(options.image_size)
    alpha = sum((f.coverage for f in faces if f is not None), total) / len(faces)
  else:
    alpha = 1.0 - _transmittance(faces, options)
  background = np.broadcast_to(options.background, textures.shape[-1:]).astype(float)
  if options.aggr_rgb == "hard":
    ids = _nearest_faces(faces, options)
    shares = [(ids == f).astype(float) for f in range(len(faces))]
    color = (ids < 0)[..., None] * background
  else:
    span = options.far - options.near
    empty = np.zeros(options.image_size)
    heights = [empty if f is None else np.where(f.blended, (options.far - f.depth) / span, 0.0)
               for f in faces]  # fmt: skip
    most = np.maximum(options.eps, np.max(heights, axis=0, initial=0.0))
    with np.errstate(over="ignore"):
      raw = [
        empty
        if f is None
        else np.where(f.blended, f.coverage * np.exp((h - most) / options.gamma), 0)
        for f, h in zip(faces, heights, strict=True)
      ]
      # The kernel's sum starts at exp(eps / gamma), its running maximum at eps.
      behind = np.exp(np.minimum((2.0 * options.eps - most) / options.gamma, 600.0))
    total = np.sum(raw, axis=0) + behind
    shares = [weight / total for weight in raw]
    color = (behind / total)[..., None] * background
  for face, share, texture in zip(faces, shares, textures, strict=True):
    if face is not None:
      color = color + share[..., None] * np.einsum("thw,tc->hwc", face.texels, texture)
  return alpha, color, shares


def _nearest_faces(faces: list[_Face | None], options: Options) -> np.ndarray:
  ids = np.full(options.image_size, -1)
  nearest = np.full(options.image_size, np.inf)
  for f, face in enumerate(faces):
    if face is not None:
      nearer = face.hit & (face.depth < nearest)
      ids, nearest = np.where(nearer, f, ids), np.where(nearer, face.depth, nearest)
  return ids
