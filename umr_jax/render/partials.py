"""The backward passes: gradients of alpha and colour on corners, texels, sigma and gamma.

The gradient is the one that the SoftRas kernel defines: neither the depth nor the texel at a pixel
depends on x and y of the corners. On the signed distance s of a pair it is

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
from jaxtyping import Array, Bool, Float, Int

from umr_jax.render import distance
from umr_jax.render.aggregate import ALPHA_CHUNK, COLOR_CHUNK, softmax_weights, visible_rows
from umr_jax.render.binning import Bins, pixel_offsets, tile_image, tiles_at
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
from umr_jax.render.textures import add_texel_gradients, colors_of


@jax.tree_util.register_static
class NeedsGradient(NamedTuple):
  """Which inputs are differentiated. Static: known when the program is traced."""

  geometry: bool  # of alpha, on the corners
  color_geometry: bool = False  # of colour, on the corners
  textures: bool = False
  sigma: bool = False
  gamma: bool = False
  background: bool = False


class Pixels(NamedTuple):
  """The backward pass's inputs at each pixel; [tiles, 16] each but `rgba_cotangent`."""

  inverse_total: Array  # one over the sum of weights, background included
  nearest: Array
  image_dot: Array  # see `geometry_dot`
  rgba_cotangent: Array  # the gradient on the image [B, H, W, C + 1], not tiled: a copy costs more

  def at(self, tile: Int[Array, "R"], settings: Settings) -> "Pixels":
    """The pixels of given tiles: [R, 16], and the gradient [R, 16, C + 1].

    Args:
      tile: numbers of tiles, through all images.
      settings: of the rasterizer.
    """
    return Pixels(
      inverse_total=self.inverse_total.at[tile].get(mode="clip"),
      nearest=self.nearest.at[tile].get(mode="clip"),
      image_dot=self.image_dot.at[tile].get(mode="clip"),
      rgba_cotangent=tiles_at(self.rgba_cotangent, settings.grid, tile),
    )


class Partials(NamedTuple):
  """Gradients, summed over rows. Those that are not needed stay zero."""

  corners: Float[Array, "N1 6"]  # x0 y0 x1 y1 x2 y2
  depths: Float[Array, "N1 3"]
  textures: Float[Array, "N T C"]
  sigma: Float[Array, ""]
  gamma: Float[Array, ""]


def alpha_vjp(
  bins: Bins,
  settings: Settings,
  sigma: Array,
  alpha_cotangent: Float[Array, "tiles 16"],
  needs: NeedsGradient,
  *,
  in_range: bool,
) -> tuple[Float[Array, "N1 6"], Float[Array, ""]]:
  """Gradient of alpha on the corners of all faces, and on sigma.

  Args:
    bins: the faces.
    settings: of the forward pass.
    sigma: of the forward pass.
    alpha_cotangent: gradient on alpha times the transmittance, per pixel; with "sum" divided by F.
      Tiles where it is zero are skipped.
    needs: which parts are needed; the others stay zero.
    in_range: whether pairs beyond near and far are left out, as the kernel does when it renders
      colour.
  """
  radius = blur_radius(sigma, settings.dist_eps)

  def body(rows: Rows, state: tuple[Array, Array]) -> tuple[Array, Array]:
    corners, sigma_partial = state
    closest = _closest_point(rows, settings)
    pairs = pairs_of(rows, settings, sigma, radius, closest)
    counted = pairs.in_range if in_range else pairs.in_support
    inv_odds = inverse_odds(pairs, counted)
    covered = coverage(inv_odds)
    cotangent = alpha_cotangent.at[rows.tile].get(mode="clip") * covered
    if settings.aggr_alpha == "sum":
      cotangent *= 1.0 - covered
    if needs.sigma:
      sigma_partial -= jnp.sum(jnp.where(counted, cotangent * pairs.signed, 0.0)) / sigma
    if needs.geometry:
      corners = _add_corners(corners, rows, cotangent, inv_odds, sigma, settings, closest)
    return corners, sigma_partial

  state = (jnp.zeros((bins.num_faces + 1, 6), jnp.float32), jnp.zeros((), jnp.float32))
  if not (needs.geometry or needs.sigma):
    return state
  nonzero = ~(jnp.max(jnp.abs(alpha_cotangent), axis=-1) <= 0.0)  # NaN counts as not zero
  keep = _in_tiles(rows_in_support(settings, radius), nonzero)
  chunk = default_chunk(bins.num_faces, ALPHA_CHUNK)
  if alpha_cotangent.shape[0] < bins.num_faces:
    # Faces of about a tile's size: hardly one of their few tiles could be left out.
    return over_rows(bins, settings.grid, chunk, body, state)
  return over_kept_rows(bins, settings.grid, chunk, keep, body, state)


def color_vjp(
  bins: Bins,
  textures: Float[Array, "N T C"],
  pixels: Pixels,
  settings: Settings,
  sigma: Array,
  gamma: Array,
  needs: NeedsGradient,
) -> Partials:
  """Gradient of softmax colour on everything but the background.

  Args:
    bins: the faces.
    textures: of all faces.
    pixels: the image and the gradient on it. Tiles where that is zero are skipped.
    settings: of the forward pass.
    sigma: of the forward pass.
    gamma: of the forward pass.
    needs: which parts are needed; the others stay zero.
  """
  radius = blur_radius(sigma, settings.dist_eps)

  def body(rows: Rows, partials: Partials) -> Partials:
    closest = _closest_point(rows, settings)
    pairs = pairs_of(rows, settings, sigma, radius, closest)
    at = pixels.at(rows.tile, settings)
    inv_odds = inverse_odds(pairs, pairs.blended)
    covered = coverage(inv_odds)
    weights = (
      softmax_weights(pairs, inv_odds, at.nearest, settings, gamma) * covered * at.inverse_total
    )
    partials, k = _add_color(partials, rows, pairs, weights, at, textures, settings, needs)
    if needs.gamma:
      exponent = (at.nearest - pairs.depth) / (settings.far - settings.near) / gamma
      lost = jnp.where(pairs.blended, k * exponent, 0.0)
      partials = partials._replace(gamma=partials.gamma - jnp.sum(lost) / gamma)
    cotangent = k * (1.0 - covered)
    if needs.sigma:
      lost = jnp.where(pairs.blended, cotangent * pairs.signed, 0.0)
      partials = partials._replace(sigma=partials.sigma - jnp.sum(lost) / sigma)
    if needs.color_geometry:
      corners = _add_corners(partials.corners, rows, cotangent, inv_odds, sigma, settings, closest)
      partials = partials._replace(corners=corners)
    return partials

  partials = zero_partials(bins, textures)
  if needs.color_geometry or needs.sigma or needs.textures or needs.gamma:
    keep = visible_rows(pixels.nearest, settings, radius, gamma)
    steepest = functools.reduce(
      jnp.maximum, [jnp.abs(pixels.rgba_cotangent[..., i]) for i in range(textures.shape[-1])]
    )
    steepest = jnp.max(tile_image(steepest, settings.grid), axis=-1)
    nonzero = ~(steepest <= 0.0)  # NaN counts as not zero
    keep = _in_tiles(keep, nonzero)
    chunk = default_chunk(bins.num_faces, COLOR_CHUNK)
    partials = over_kept_rows(bins, settings.grid, chunk, keep, body, partials)
  return partials._replace(depths=partials.depths / (gamma * (settings.near - settings.far)))


def zero_partials(bins: Bins, textures: Float[Array, "N T C"]) -> Partials:
  """Gradients before any row was visited.

  Args:
    bins: the faces of the batch.
    textures: of all faces.
  """
  faces, zero = bins.num_faces + 1, jnp.zeros((), jnp.float32)
  corners, depths = jnp.zeros((faces, 6), jnp.float32), jnp.zeros((faces, 3), jnp.float32)
  return Partials(corners, depths, jnp.zeros(textures.shape, jnp.float32), zero, zero)


def _in_tiles(
  keep: Callable[[Rows], Array], nonzero: Bool[Array, "tiles"]
) -> Callable[[Rows], Array]:
  """Leaves out, too, the rows of tiles whose cotangent is zero."""
  return lambda rows: keep(rows) & nonzero.at[rows.tile].get(mode="clip")


def geometry_dot(
  settings: Settings, colors: Float[Array, "*N D"], rgba_cotangent: Float[Array, "*N C1"]
) -> Float[Array, "*N"]:
  """Colours dotted with the gradient on an image, over the channels that move the geometry.

  Channel by channel: a reduction over a short last axis costs several times as much.

  Args:
    settings: of the rasterizer.
    colors: of the pixels, channels last.
    rgba_cotangent: the gradient on the image.
  """
  channels = settings.geometry_channels or (True,) * (rgba_cotangent.shape[-1] - 1)
  result = jnp.zeros(rgba_cotangent.shape[:-1], jnp.float32)
  for i, chosen in enumerate(channels):
    if chosen:
      result += colors[..., i] * rgba_cotangent[..., i]
  return result


def _add_color(
  partials: Partials,
  rows: Rows,
  pairs: Pairs,
  weights: Array,
  at: Pixels,
  textures: Array,
  settings: Settings,
  needs: NeedsGradient,
) -> tuple[Partials, Array]:
  """Adds the gradients on texels and depths; returns k of the module's text, too."""
  if needs.textures:
    partials = partials._replace(
      textures=add_texel_gradients(
        partials.textures, rows, pairs, weights, at.rgba_cotangent[..., :-1], settings
      )
    )
  if not (needs.color_geometry or needs.sigma or needs.gamma):
    return partials, jnp.zeros_like(weights)
  colors = jnp.swapaxes(colors_of(rows, pairs.weights, textures, settings), 1, 2)
  k = weights * (geometry_dot(settings, colors, at.rgba_cotangent) - at.image_dot)
  if needs.color_geometry:
    partials = partials._replace(depths=_add_depths(partials.depths, rows, pairs, k))
  return partials, k


def _closest_point(rows: Rows, settings: Settings) -> distance.ClosestPoint | None:
  """The nearest point of the outline; None for the barycentric distance, which has none."""
  if settings.dist_func == "barycentric":
    return None
  dx, dy = pixel_offsets(settings.grid)
  place = distance.locate_nearest(rows, distance.edges_of(rows), dx, dy).place
  return distance.closest_point(rows, dx, dy, place)


def _add_corners(
  corners: Array,
  rows: Rows,
  cotangent: Array,
  inv_odds: Array,
  sigma: Array,
  settings: Settings,
  closest: distance.ClosestPoint | None,
) -> Array:
  """Backpropagates a gradient on the signed distance over sigma to the corners."""
  dx, dy = pixel_offsets(settings.grid)
  # D exceeds a half inside the face, where the distance counts positive.
  cotangent = jnp.where(inv_odds <= 1.0, cotangent, -cotangent) * (1.0 / sigma)
  sums = distance.corner_gradients(rows, distance.edges_of(rows), dx, dy, cotangent, closest)
  return corners.at[rows.face].add(jnp.stack(sums, axis=-1), mode="promise_in_bounds")


def _add_depths(depths: Array, rows: Rows, pairs: Pairs, k: Array) -> Array:
  """Adds d(depth)/d(corner depth) = z^2 w_i / z_i^2 times `k`."""
  scaled = k * pairs.depth * pairs.depth
  sums = [
    jnp.sum(scaled * weight, axis=-1, keepdims=True) * inverse * inverse
    for weight, inverse in zip(pairs.weights, rows.inverse_depth, strict=True)
  ]
  return depths.at[rows.face].add(jnp.concatenate(sums, axis=-1), mode="promise_in_bounds")
