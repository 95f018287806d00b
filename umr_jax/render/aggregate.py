"""Alpha and colour of all pixels from the faces near them.

Each function is one pass over all rows of (face, tile). Nothing of the size pixels x faces is ever
stored; the backward passes, in `partials`, recompute what they need.

Alpha keeps the product of 1 / (1 - D) and never forms 1 - alpha or divides by 1 - D, so that
pixels deep inside the shape saturate to alpha 1 and gradient 0 instead of NaN. Colour weights are
relative to the nearest depth of the pixel, as differences of depths: in float32 a difference of
SoftRas's normalised depths would cost half of the digits.

Source: Liu et al. 2019, "Soft Rasterizer", sections 3.3 and 3.4.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from umr_jax.render import distance
from umr_jax.render.binning import PIXELS, Bins, Grid, pixel_offsets
from umr_jax.render.rows import Rows, default_chunk, over_kept_rows, over_rows

# Rows per step: temporaries of [rows, 16] should stay in the cache.
ALPHA_CHUNK = 16384
COLOR_CHUNK = 4096
# A pixel on a face's border is on the face. Two faces that share an edge may each round it away.
_BORDER = 1e-6
# The largest exponent of the background's weight: beyond it the background alone remains.
_LARGEST_EXPONENT = 60.0
TINY = 1e-30
# Added to a whole number that is smaller, it leaves the number in the lowest bits of the sum.
_WHOLE = np.float32(1 << 23)


class BlendParams(NamedTuple):
  """The parameters that may be traced; everything else is in `Settings`."""

  sigma: Float[Array, ""]
  gamma: Float[Array, ""]
  background: Float[Array, "C"]


class Settings(NamedTuple):
  """What a compiled rasterizer is specialised to."""

  grid: Grid
  dist_func: str = "euclidean"
  dist_eps: float = 1e-4
  aggr_rgb: str = "softmax"
  aggr_alpha: str = "prod"
  texture_type: str = "surface"
  near: float = 1.0
  far: float = 100.0
  eps: float = 1e-3
  double_sided: bool = True
  fragments: bool = False
  geometry_channels: tuple[bool, ...] | None = None  # None: all

  @property
  def farthest(self) -> float:
    """The depth at which the running maximum of SoftRas starts."""
    return self.far - self.eps * (self.far - self.near)


class Pairs(NamedTuple):
  """A chunk of rows against the 16 pixels of their tiles; [R, 16] each."""

  signed: Float[Array, "R 16"]  # signed distance over sigma
  in_support: Bool[Array, "R 16"]  # counts for alpha
  in_range: Bool[Array, "R 16"]  # and lies between near and far
  not_culled: Bool[Array, "R 16"]  # lies between near and far, and its side is rendered
  blended: Bool[Array, "R 16"]  # in support and not culled: counts for colour
  hit: Bool[Array, "R 16"]  # and the pixel is on the face, borders included
  weights: distance.Triple  # clipped barycentric
  depth: Float[Array, "R 16"]


def blur_radius(sigma: Array, dist_eps: float) -> Array:
  """The distance from a face, in image-space units, at which D falls to dist_eps.

  It bounds the face's support. PyTorch3D's option of this name is its square.

  Args:
    sigma: softness of outlines.
    dist_eps: the least D.
  """
  return jnp.sqrt(sigma * np.float32(np.log(1.0 / dist_eps - 1.0)))


def pairs_of(
  rows: Rows,
  settings: Settings,
  sigma: Array,
  radius: Array,
  closest: distance.ClosestPoint | None = None,
) -> Pairs:
  """Evaluates everything that alpha and colour need. What is not used costs nothing once jitted.

  Args:
    rows: the faces and tiles.
    settings: of the rasterizer.
    sigma: softness of outlines.
    radius: the `blur_radius`.
    closest: the nearest points of the outlines, where they are known.
  """
  dx, dy = pixel_offsets(settings.grid)
  edges = distance.edges_of(rows)
  squared, in_support = distance.signed_distance(
    rows, edges, dx, dy, dist_func=settings.dist_func, radius=radius, closest=closest
  )
  raw = distance.barycentric(distance.edge_distances(rows, edges, dx, dy), rows)
  clipped, total = distance.clipped(raw)
  weights = tuple(value / total for value in clipped)
  depth = distance.depth_at(clipped, total, rows)
  in_range = (depth >= settings.near) & (depth <= settings.far)
  not_culled = in_range if settings.double_sided else in_range & (edges.side > 0.0)
  blended = in_support & not_culled
  least = jnp.minimum(jnp.minimum(raw[0], raw[1]), raw[2])
  hit = blended & (least >= -_BORDER)
  return Pairs(
    squared / sigma, in_support, in_support & in_range, not_culled, blended, hit, weights, depth
  )


def inverse_odds(pairs: Pairs, counted: Array) -> Float[Array, "R 16"]:
  """(1 - D) / D, infinite where a pair is not counted; see `coverage`.

  Args:
    pairs: rows of faces against pixels.
    counted: the pairs to count.
  """
  return jnp.exp(jnp.where(counted, -pairs.signed, jnp.inf))


def coverage(inv_odds: Array) -> Float[Array, "R 16"]:
  """D, from its `inverse_odds`; exactly zero where these are infinite."""
  return 1.0 / (1.0 + inv_odds)


def softmax_weights(
  pairs: Pairs, inv_odds: Array, nearest: Array, settings: Settings, gamma: Array
) -> Array:
  """exp((zeta - m) / gamma) of SoftRas: a pair's weight, but for D.

  Which pairs are blended is read off their inverse odds, which are stored: the mask itself would
  be computed again, with the search for the nearest edge.

  Args:
    pairs: rows of faces against pixels.
    inv_odds: their `inverse_odds`.
    nearest: the nearest depth of each pixel.
    settings: of the rasterizer.
    gamma: softness of occlusion.
  """
  exponent = (nearest - pairs.depth) * (1.0 / (settings.far - settings.near)) / gamma
  # No pair is nearer than the nearest one. But at the distance where faces are ignored rounding may
  # add a pair to the backward pass that the forward pass did not have.
  return jnp.exp(jnp.where(inv_odds < jnp.inf, jnp.minimum(exponent, 0.0), -jnp.inf))


def background_exponent(nearest: Array, settings: Settings, gamma: Array) -> Array:
  """The exponent of the background's weight, (2 eps - m) / gamma.

  The sum of SoftRas starts at exp(eps / gamma) while its running maximum starts at eps.

  Args:
    nearest: the nearest depth of each pixel.
    settings: of the rasterizer.
    gamma: softness of occlusion.
  """
  closest = (nearest - settings.farthest) / (settings.far - settings.near) + settings.eps
  return jnp.minimum(closest / gamma, _LARGEST_EXPONENT)


def rows_in_support(settings: Settings, radius: Array) -> Callable[[Rows], Bool[Array, "R"]]:
  """Which rows may hold a pixel within the support of their face.

  Args:
    settings: of the rasterizer.
    radius: the blur radius, in image-space units.
  """
  dx, dy = pixel_offsets(settings.grid)

  def keep(rows: Rows) -> Bool[Array, "R"]:
    if settings.dist_func != "euclidean":
      return rows.active[:, 0]
    return distance.may_intersect(rows, distance.edges_of(rows), dx, dy, radius)[:, 0]

  return keep


def visible_rows(
  nearest: Float[Array, "tiles 16"], settings: Settings, radius: Array, gamma: Array
) -> Callable[[Rows], Bool[Array, "R"]]:
  """Which rows may hold a pixel to whose colour their face adds anything.

  A face that lies behind others weighs exp of minus its depth beyond the nearest one, over gamma.
  From a depth on that is small, for usual gammas, that is less than the rounding of the sum, even
  at the border of the nearest face's support, where it weighs `dist_eps`.

  Args:
    nearest: the nearest depth of each pixel.
    settings: of the rasterizer.
    radius: the blur radius, in image-space units.
    gamma: softness of occlusion.
  """
  occluded = np.float32(np.log(1e9 / settings.dist_eps))
  in_support = rows_in_support(settings, radius)
  # The deepest of a tile's nearest depths: what lies well behind that is occluded at all pixels.
  deepest = jnp.max(nearest, axis=-1)

  def keep(rows: Rows) -> Bool[Array, "R"]:
    first, second, third = rows.inverse_depth
    front = (1.0 - 1e-5) / jnp.maximum(jnp.maximum(first, second), third)[:, 0]
    behind = front - deepest.at[rows.tile].get(mode="clip")
    return in_support(rows) & (behind <= occluded * (settings.far - settings.near) * gamma)

  return keep


def transmittance(bins: Bins, settings: Settings, sigma: Array, tiles: int) -> Array:
  """The product of 1 - D over all faces, for each pixel [tiles, 16]; or with "sum" the sum of D.

  Args:
    bins: the faces of the batch.
    settings: of the rasterizer.
    sigma: softness of outlines.
    tiles: how many, of all images.
  """
  radius = blur_radius(sigma, settings.dist_eps)
  additive = settings.aggr_alpha == "sum"

  def body(rows: Rows, image: Array) -> Array:
    pairs = pairs_of(rows, settings, sigma, radius)
    return _accumulate_alpha(image, rows, pairs, additive)[0]

  image = jnp.full((tiles, PIXELS), 0.0 if additive else 1.0, jnp.float32)
  chunk = default_chunk(bins.num_faces, ALPHA_CHUNK)
  image = over_rows(bins, settings.grid, chunk, body, image)
  return image if additive else 1.0 / image


def _accumulate_alpha(
  image: Array, rows: Rows, pairs: Pairs, additive: bool
) -> tuple[Array, Bool[Array, "R 16"]]:
  """The image with the faces' shares, and again which pairs are in support, at no cost."""
  at = image.at[rows.tile]
  if additive:
    inv_odds = inverse_odds(pairs, pairs.in_support)
    return at.add(coverage(inv_odds), mode="drop"), inv_odds < jnp.inf
  # D / (1 - D), infinite deep inside; 1 plus that is 1 / (1 - D), and the product's inverse is 0.
  odds = jnp.exp(jnp.where(pairs.in_support, pairs.signed, -jnp.inf))
  return at.multiply(1.0 + odds, mode="drop"), odds > 0.0


def transmittance_and_depth(
  bins: Bins, settings: Settings, sigma: Array, tiles: int
) -> tuple[Array, Array]:
  """`transmittance`, and the nearest depth that counts for colour.

  Args:
    bins: the faces of the batch.
    settings: of the rasterizer.
    sigma: softness of outlines.
    tiles: how many, of all images.
  """
  radius = blur_radius(sigma, settings.dist_eps)
  additive = settings.aggr_alpha == "sum"

  def body(rows: Rows, state: tuple[Array, Array]) -> tuple[Array, Array]:
    pairs = pairs_of(rows, settings, sigma, radius)
    image, in_support = _accumulate_alpha(state[0], rows, pairs, additive)
    depth = jnp.where(in_support & pairs.not_culled, pairs.depth, settings.farthest)
    return image, state[1].at[rows.tile].min(distance.as_integers(depth), mode="drop")

  image = jnp.full((tiles, PIXELS), 0.0 if additive else 1.0, jnp.float32)
  nearest = distance.as_integers(jnp.full((tiles, PIXELS), settings.farthest, jnp.float32))
  chunk = default_chunk(bins.num_faces, ALPHA_CHUNK)
  image, nearest = over_rows(bins, settings.grid, chunk, body, (image, nearest))
  return image if additive else 1.0 / image, distance.as_floats(nearest)


def texel_index(weights: distance.Triple, side: int) -> Array:
  """The texel of a face's `side` x `side` triangular cells that a pixel reads.

  Args:
    weights: clipped barycentric weights.
    side: texels along each side of a face.
  """
  u_position, v_position = weights[0] * side, weights[1] * side
  u, v = jnp.floor(u_position), jnp.floor(v_position)
  lower = (u_position - u) + (v_position - v) <= 1.0
  number = jnp.where(lower, v * side + u, (side - 1 - v) * side + (side - 1 - u))
  number = jnp.clip(number, 0.0, side * side - 1.0)
  if side * side >= _WHOLE:
    return number.astype(jnp.int32)
  # Each channel reads with this index, and would compute it anew. A division is computed once, be
  # it by one (no weight is zero); and the bits of the sum are the number, without a conversion.
  number = (number + _WHOLE) / jnp.where(weights[2] > 0.0, 1.0, 2.0)
  return lax.bitcast_convert_type(number, jnp.int32) - _WHOLE.view(np.int32)


def colors_at(face: Array, weights: distance.Triple, textures: Array, settings: Settings) -> Array:
  """The colour [..., C] of face `face` at clipped weights; `textures` is [N, T, C].

  Args:
    face: numbers of faces, through the whole batch.
    weights: clipped barycentric weights.
    textures: of all faces.
    settings: of the rasterizer.
  """
  _, texels, channels = textures.shape
  if settings.texture_type == "vertex":
    corner = textures.at[face].get(mode="promise_in_bounds")
    first, second, third = (w[..., None] * corner[..., i, :] for i, w in enumerate(weights))
    return first + second + third
  if texels == 1:
    return textures[:, 0].at[face].get(mode="promise_in_bounds")
  index = face * texels + texel_index(weights, round(np.sqrt(texels)))
  return textures.reshape(-1, channels).at[index].get(mode="promise_in_bounds")


def colors_of(
  rows: Rows, weights: distance.Triple, textures: Array, settings: Settings
) -> Float[Array, "R C 16"]:
  """The colour of each row's face at each pixel, or [R, C, 1] where it is the same at all.

  Channels come before pixels, so that what is done for 16 pixels is done at once.

  Args:
    rows: the faces and tiles.
    weights: clipped barycentric weights.
    textures: of all faces.
    settings: of the rasterizer.
  """
  face = jnp.minimum(rows.face, textures.shape[0] - 1)
  _, texels, channels = textures.shape
  if settings.texture_type == "vertex" or texels == 1:
    corner = textures.at[face].get(mode="promise_in_bounds")[..., None]
    if texels == 1:
      return corner[:, 0]
    first, second, third = (w[:, None] * corner[:, i] for i, w in enumerate(weights))
    return first + second + third
  index = face[:, None] * texels + texel_index(weights, round(np.sqrt(texels)))
  index = channels * index[:, None] + np.arange(channels, dtype=np.int32)[None, :, None]
  return textures.reshape(-1).at[index].get(mode="promise_in_bounds")


def softmax_colors(
  bins: Bins,
  textures: Float[Array, "N T C"],
  nearest: Float[Array, "tiles 16"],
  background: Float[Array, "C"],
  settings: Settings,
  sigma: Array,
  gamma: Array,
) -> tuple[Float[Array, "tiles C 16"], Float[Array, "tiles 16"]]:
  """The colour of each pixel, and one over the sum of the weights of its faces and background.

  Args:
    bins: the faces of the batch.
    textures: of all faces.
    nearest: the nearest depth of each pixel.
    background: colour where no face is.
    settings: of the rasterizer.
    sigma: softness of outlines.
    gamma: softness of occlusion.
  """
  radius = blur_radius(sigma, settings.dist_eps)
  bits = distance.as_integers(nearest)

  def body(rows: Rows, state: tuple[Array, Array]) -> tuple[Array, Array]:
    sums, total = state
    pairs = pairs_of(rows, settings, sigma, radius)
    depth = distance.as_floats(bits.at[rows.tile].get(mode="clip"))
    inv_odds = inverse_odds(pairs, pairs.blended)
    # One division in place of a product with `coverage`: a single pass, which is stored.
    weights = softmax_weights(pairs, inv_odds, depth, settings, gamma) / (1.0 + inv_odds)
    colors = colors_of(rows, pairs.weights, textures, settings) * weights[:, None]
    sums = sums.at[rows.tile].add(colors, mode="drop")
    return sums, total.at[rows.tile].add(weights, mode="drop")

  # The sums start with the background.
  total = jnp.exp(background_exponent(nearest, settings, gamma))
  state = (total[:, None] * background[None, :, None], total)
  chunk = default_chunk(bins.num_faces, COLOR_CHUNK)
  keep = visible_rows(nearest, settings, radius, gamma)
  sums, total = over_kept_rows(bins, settings.grid, chunk, keep, body, state)
  inverse = 1.0 / jnp.maximum(total, TINY)
  return sums * inverse[:, None], inverse
