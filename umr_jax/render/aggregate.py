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

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from umr_jax.render.barycentric import as_floats, as_integers
from umr_jax.render.binning import PIXELS, Bins
from umr_jax.render.pairs import (
  Pairs,
  Settings,
  blur_radius,
  coverage,
  inverse_odds,
  pairs_of,
  rows_in_support,
)
from umr_jax.render.rows import Rows, default_chunk, over_kept_rows, over_rows
from umr_jax.render.textures import colors_of

# Rows per step: temporaries of [rows, 16] should stay in the cache.
ALPHA_CHUNK = 16384
COLOR_CHUNK = 4096
# The largest exponent of the background's weight: beyond it the background alone remains.
_LARGEST_EXPONENT = 60.0
TINY = 1e-30


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
    return image, state[1].at[rows.tile].min(as_integers(depth), mode="drop")

  image = jnp.full((tiles, PIXELS), 0.0 if additive else 1.0, jnp.float32)
  nearest = as_integers(jnp.full((tiles, PIXELS), settings.farthest, jnp.float32))
  chunk = default_chunk(bins.num_faces, ALPHA_CHUNK)
  image, nearest = over_rows(bins, settings.grid, chunk, body, (image, nearest))
  return image if additive else 1.0 / image, as_floats(nearest)


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
  bits = as_integers(nearest)

  def body(rows: Rows, state: tuple[Array, Array]) -> tuple[Array, Array]:
    sums, total = state
    pairs = pairs_of(rows, settings, sigma, radius)
    depth = as_floats(bits.at[rows.tile].get(mode="clip"))
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
