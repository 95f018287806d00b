"""The backward passes: gradients of alpha and colour on corners, texels, sigma and gamma.

The gradient is the one that the SoftRas kernel defines: neither the depth that a pixel sees nor the
texel that it reads depends on x and y of the corners. On the signed distance s of a pair it is

  G_alpha (1 - alpha) D + (1 - D) k    with k = W (G_color . (c - C)),

where W is the pair's share of the pixel's colour C, and c its own colour. Each pass recomputes the
pairs instead of having stored them.

Source: Liu et al. 2019, "Soft Rasterizer", section 3.4 and the supplementary.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from umr_jax.render import distance
from umr_jax.render.aggregate import (
  ALPHA_CHUNK,
  COLOR_CHUNK,
  Pairs,
  Settings,
  colors_of,
  coverage,
  felt_rows,
  odds_against,
  pairs_of,
  reach_of,
  softmax_weights,
  texel_index,
  visible_rows,
)
from umr_jax.render.binning import Bins, pixel_offsets, tile_image, tiles_at
from umr_jax.render.rows import Rows, default_chunk, over_kept_rows, over_rows


@jax.tree_util.register_static
class Wants(NamedTuple):
  """Which gradients somebody asked for. Static: known when the program is traced."""

  geometry: bool  # of alpha, on the corners
  color_geometry: bool = False  # of colour, on the corners
  textures: bool = False
  sigma: bool = False
  gamma: bool = False
  background: bool = False


class Pixels(NamedTuple):
  """What the backward pass knows of each pixel; [tiles, 16] each but `rgba_slope`."""

  inverse_total: Array  # one over the sum of weights, background included
  nearest: Array
  shade: Array  # the colour dotted with what of its gradient reaches the geometry
  rgba_slope: Array  # the gradient on the image [B, H, W, C + 1], not tiled: a copy costs more

  def at(self, tile: Int[Array, "R"], settings: Settings) -> "Pixels":
    """The pixels of given tiles: [R, 16], and the gradient [R, 16, C + 1]."""
    return Pixels(
      inverse_total=self.inverse_total.at[tile].get(mode="clip"),
      nearest=self.nearest.at[tile].get(mode="clip"),
      shade=self.shade.at[tile].get(mode="clip"),
      rgba_slope=tiles_at(self.rgba_slope, settings.grid, tile),
    )


class Slopes(NamedTuple):
  """Gradients, summed over rows. Parts that are not asked for stay zero."""

  corners: Float[Array, "N1 6"]  # x0 y0 x1 y1 x2 y2
  depths: Float[Array, "N1 3"]
  textures: Float[Array, "N T C"]
  sigma: Float[Array, ""]
  gamma: Float[Array, ""]


def alpha_slopes(
  bins: Bins,
  settings: Settings,
  sigma: Array,
  alpha_slope: Float[Array, "tiles 16"],
  wants: Wants,
  *,
  in_range: bool,
) -> tuple[Float[Array, "N1 6"], Float[Array, ""]]:
  """Gradient of alpha on the corners of all faces, and on sigma.

  Args:
    bins: the faces.
    settings: of the forward pass.
    sigma: of the forward pass.
    alpha_slope: gradient on alpha times the transmittance, per pixel; with "sum" divided by F.
      Tiles where it is zero are skipped.
    wants: which parts are needed; the others stay zero.
    in_range: whether pairs beyond near and far are left out, as the kernel does when it draws
      colour.
  """
  reach = reach_of(sigma, settings.dist_eps)

  def body(rows: Rows, state: tuple[Array, Array]) -> tuple[Array, Array]:
    corners, on_sigma = state
    gap = _gap(rows, settings)
    pairs = pairs_of(rows, settings, sigma, reach, gap)
    counted = pairs.in_range if in_range else pairs.felt
    odds = odds_against(pairs, counted)
    covered = coverage(odds)
    slope = alpha_slope.at[rows.tile].get(mode="clip") * covered
    if settings.aggr_alpha == "sum":
      slope *= 1.0 - covered
    if wants.sigma:
      on_sigma -= jnp.sum(jnp.where(counted, slope * pairs.signed, 0.0)) / sigma
    if wants.geometry:
      corners = _add_corners(corners, rows, slope, odds, sigma, settings, gap)
    return corners, on_sigma

  state = (jnp.zeros((bins.num_faces + 1, 6), jnp.float32), jnp.zeros((), jnp.float32))
  if not (wants.geometry or wants.sigma):
    return state
  live = ~(jnp.max(jnp.abs(alpha_slope), axis=-1) <= 0.0)  # what is not a number is alive
  keep = _in_live_tiles(felt_rows(settings, reach), live)
  chunk = default_chunk(bins.num_faces, ALPHA_CHUNK)
  if alpha_slope.shape[0] < bins.num_faces:
    # Faces of about a tile's size: hardly one of their few tiles could be left out.
    return over_rows(bins, settings.grid, chunk, body, state)
  return over_kept_rows(bins, settings.grid, chunk, keep, body, state)


def color_slopes(
  bins: Bins,
  textures: Float[Array, "N T C"],
  pixels: Pixels,
  settings: Settings,
  sigma: Array,
  gamma: Array,
  wants: Wants,
) -> Slopes:
  """Gradient of softmax colour on everything but the background.

  Args:
    bins: the faces.
    textures: of all faces.
    pixels: the image and the gradient on it. Tiles where that is zero are skipped.
    settings: of the forward pass.
    sigma: of the forward pass.
    gamma: of the forward pass.
    wants: which parts are needed; the others stay zero.
  """
  reach = reach_of(sigma, settings.dist_eps)

  def body(rows: Rows, slopes: Slopes) -> Slopes:
    gap = _gap(rows, settings)
    pairs = pairs_of(rows, settings, sigma, reach, gap)
    at = pixels.at(rows.tile, settings)
    odds = odds_against(pairs, pairs.shown)
    covered = coverage(odds)
    weights = softmax_weights(pairs, odds, at.nearest, settings, gamma) * covered * at.inverse_total
    slopes, pull = _add_color(slopes, rows, pairs, weights, at, textures, settings, gamma, wants)
    slope = pull * (1.0 - covered)
    if wants.sigma:
      lost = jnp.where(pairs.shown, slope * pairs.signed, 0.0)
      slopes = slopes._replace(sigma=slopes.sigma - jnp.sum(lost) / sigma)
    if wants.color_geometry:
      corners = _add_corners(slopes.corners, rows, slope, odds, sigma, settings, gap)
      slopes = slopes._replace(corners=corners)
    return slopes

  slopes = no_slopes(bins, textures)
  if wants.color_geometry or wants.sigma or wants.textures or wants.gamma:
    keep = visible_rows(pixels.nearest, settings, reach, gamma)
    steepest = functools.reduce(
      jnp.maximum, [jnp.abs(pixels.rgba_slope[..., i]) for i in range(textures.shape[-1])]
    )
    steepest = jnp.max(tile_image(steepest, settings.grid), axis=-1)
    live = ~(steepest <= 0.0)  # what is not a number is alive
    keep = _in_live_tiles(keep, live)
    chunk = default_chunk(bins.num_faces, COLOR_CHUNK)
    slopes = over_kept_rows(bins, settings.grid, chunk, keep, body, slopes)
  return slopes._replace(depths=slopes.depths / (gamma * (settings.near - settings.far)))


def no_slopes(bins: Bins, textures: Float[Array, "N T C"]) -> Slopes:
  """Gradients before any row was visited."""
  faces, zero = bins.num_faces + 1, jnp.zeros((), jnp.float32)
  corners, depths = jnp.zeros((faces, 6), jnp.float32), jnp.zeros((faces, 3), jnp.float32)
  return Slopes(corners, depths, jnp.zeros(textures.shape, jnp.float32), zero, zero)


def _in_live_tiles(
  keep: Callable[[Rows], Array], live: Bool[Array, "tiles"]
) -> Callable[[Rows], Array]:
  """Leaves out, too, the rows of tiles that nothing is asked of."""
  return lambda rows: keep(rows) & live.at[rows.tile].get(mode="clip")


def reaching(
  settings: Settings, colors: Float[Array, "*N D"], rgba_slope: Float[Array, "*N C1"]
) -> Float[Array, "*N"]:
  """Colours dotted with what of the gradient on an image reaches the geometry through them.

  Channel by channel: a reduction over a short last axis costs several times as much.
  """
  channels = settings.geometry_channels or (True,) * (rgba_slope.shape[-1] - 1)
  result = jnp.zeros(rgba_slope.shape[:-1], jnp.float32)
  for i, chosen in enumerate(channels):
    if chosen:
      result += colors[..., i] * rgba_slope[..., i]
  return result


def _add_color(
  slopes: Slopes,
  rows: Rows,
  pairs: Pairs,
  weights: Array,
  at: Pixels,
  textures: Array,
  settings: Settings,
  gamma: Array,
  wants: Wants,
) -> tuple[Slopes, Array]:
  """Adds what softmax colour gives to texels, depths and gamma; returns k of the module's text."""
  if wants.textures:
    slopes = slopes._replace(
      textures=_add_texels(slopes.textures, rows, pairs, weights, at.rgba_slope[..., :-1], settings)
    )
  if not (wants.color_geometry or wants.sigma or wants.gamma):
    return slopes, jnp.zeros_like(weights)
  colors = jnp.swapaxes(colors_of(rows, pairs.weights, textures, settings), 1, 2)
  pull = weights * (reaching(settings, colors, at.rgba_slope) - at.shade)
  if wants.color_geometry:
    slopes = slopes._replace(depths=_add_depths(slopes.depths, rows, pairs, pull))
  if wants.gamma:
    exponent = (at.nearest - pairs.depth) / (settings.far - settings.near) / gamma
    lost = jnp.where(pairs.shown, pull * exponent, 0.0)
    slopes = slopes._replace(gamma=slopes.gamma - jnp.sum(lost) / gamma)
  return slopes, pull


def _gap(rows: Rows, settings: Settings) -> distance.Gap | None:
  """To the nearest point of the outline, for a Euclidean distance; the other one has none."""
  if settings.dist_func == "barycentric":
    return None
  dx, dy = pixel_offsets(settings.grid)
  place = distance.locate_nearest(rows, distance.edges_of(rows), dx, dy).place
  return distance.gap_to(rows, dx, dy, place)


def _add_corners(
  corners: Array,
  rows: Rows,
  slope: Array,
  odds: Array,
  sigma: Array,
  settings: Settings,
  gap: distance.Gap | None,
) -> Array:
  """Adds the pull of a gradient on the signed distance over sigma."""
  dx, dy = pixel_offsets(settings.grid)
  # Inside a face the odds are against not covering, and the distance counts positive.
  slope = jnp.where(odds <= 1.0, slope, -slope) * (1.0 / sigma)
  sums = distance.corner_gradients(rows, distance.edges_of(rows), dx, dy, slope, gap)
  return corners.at[rows.face].add(jnp.stack(sums, axis=-1), mode="promise_in_bounds")


def _add_depths(depths: Array, rows: Rows, pairs: Pairs, pull: Array) -> Array:
  """Adds d(depth)/d(corner depth) = z^2 w_i / z_i^2 times `pull`."""
  scaled = pull * pairs.depth * pairs.depth
  sums = [
    jnp.sum(scaled * weight, axis=-1, keepdims=True) * inverse * inverse
    for weight, inverse in zip(pairs.weights, rows.inverse_depth, strict=True)
  ]
  return depths.at[rows.face].add(jnp.concatenate(sums, axis=-1), mode="promise_in_bounds")


def _add_texels(
  textures: Array, rows: Rows, pairs: Pairs, weights: Array, color_slope: Array, settings: Settings
) -> Array:
  """Adds to the texel that each pixel read what the pixel's colour gets, times its weight."""
  faces, texels, channels = textures.shape
  face = jnp.minimum(rows.face, faces - 1)
  given = weights[..., None] * color_slope
  if settings.texture_type == "vertex":
    sums = jnp.stack([jnp.sum(w[..., None] * given, axis=1) for w in pairs.weights], axis=1)
    return textures.at[face].add(sums, mode="promise_in_bounds")
  if texels == 1:
    return textures.at[face, 0].add(jnp.sum(given, axis=1), mode="promise_in_bounds")
  index = face[:, None] * texels + texel_index(pairs.weights, round(np.sqrt(texels)))
  # Most pairs weigh nothing; out of bounds they are skipped, at half the cost of adding zero.
  index = jnp.where(weights > 0.0, index, faces * texels)
  flat = textures.reshape(-1, channels).at[index].add(given, mode="drop")
  return flat.reshape(textures.shape)
