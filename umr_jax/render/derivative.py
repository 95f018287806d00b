"""The passes put together into images, and the derivative of the images.

The derivative is written out (`jax.custom_vjp`), for two reasons: SoftRas defines one that
automatic differentiation of the image would not give, and the backward pass recomputes its way
through the faces instead of storing pixels x faces.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from umr_jax.render import aggregate, visibility
from umr_jax.render.aggregate import Settings
from umr_jax.render.binning import bin_faces, tile_image, untile_image
from umr_jax.render.folding import foldable, sequential
from umr_jax.render.slopes import Pixels, Wants, alpha_slopes, color_slopes, no_slopes, reaching

# A transmittance that is as good as none.
_SATURATED = 1e-12


class Rendered(NamedTuple):
  """One raster; the last three only where `Settings.fragments` asks for them, None otherwise."""

  rgba: Float[Array, "B H W C1"]  # any number of channels of colour, then alpha
  face_ids: Any  # Int [B, H, W], counted within each image; -1 for none
  face_depth: Any  # [B, H, W], of that face; infinite where there is none
  landing: Any  # [B, F, 2]


def _tiles(settings: Settings, batch: int) -> int:
  return batch * settings.grid.tiles


# --- silhouette ---


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def silhouette(
  settings: Settings, face_vertices: Float[Array, "B F 3 3"], sigma: Float[Array, ""]
) -> Float[Array, "B H W"]:
  """Alpha alone, differentiable in the corners' x and y and in sigma."""
  passed = _transmittance(settings, face_vertices, sigma)
  return untile_image(_alpha(settings, passed, face_vertices.shape[1]), settings.grid)


def _alpha(settings: Settings, passed: Array, faces: int) -> Array:
  return passed / faces if settings.aggr_alpha == "sum" else 1.0 - passed


@functools.partial(jax.jit, static_argnums=0)
def _transmittance(settings: Settings, face_vertices: Array, sigma: Array) -> Array:
  draw = functools.partial(_draw_transmittance, settings)
  return foldable(draw, shared=1)(face_vertices, sigma)


def _draw_transmittance(settings: Settings, face_vertices: Array, sigma: Array) -> Array:
  reach = aggregate.reach_of(sigma, settings.dist_eps)
  bins = bin_faces(face_vertices, reach, settings.grid)
  tiles = _tiles(settings, face_vertices.shape[0])
  return aggregate.transmittance(bins, settings, sigma, tiles)


def _silhouette_forward(settings: Settings, face_vertices: Any, sigma: Any) -> tuple[Array, Any]:
  wants = Wants(geometry=face_vertices.perturbed, sigma=sigma.perturbed)
  passed = _transmittance(settings, face_vertices.value, sigma.value)
  image = untile_image(_alpha(settings, passed, face_vertices.value.shape[1]), settings.grid)
  return image, (face_vertices.value, sigma.value, passed, wants)


def _silhouette_backward(settings: Settings, saved: Any, slope: Any) -> tuple[Any, Any]:
  face_vertices, sigma, passed, wants = saved
  if isinstance(slope, jax.custom_derivatives.SymbolicZero):
    return None, None
  return _silhouette_slopes(settings, wants, face_vertices, passed, slope, sigma)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _silhouette_slopes(
  settings: Settings, wants: Wants, face_vertices: Array, passed: Array, slope: Array, sigma: Array
) -> tuple[Array, Array | None]:
  pull = functools.partial(_pull_silhouette, settings, wants)
  # The gradient on sigma has no batch, so the batches of a vmap cannot be thrown together.
  mapped = sequential(pull) if wants.sigma else foldable(pull, shared=1)
  return mapped(face_vertices, passed, slope, sigma)


def _pull_silhouette(
  settings: Settings, wants: Wants, face_vertices: Array, passed: Array, slope: Array, sigma: Array
) -> tuple[Array, Array | None]:
  reach = aggregate.reach_of(sigma, settings.dist_eps)
  bins = bin_faces(face_vertices, reach, settings.grid)
  slope = tile_image(slope, settings.grid)
  alpha_slope = _alpha_slope(settings, slope, passed, face_vertices.shape[1])
  corners, on_sigma = alpha_slopes(bins, settings, sigma, alpha_slope, wants, in_range=False)
  depths = jnp.zeros((corners.shape[0], 3), jnp.float32)
  return _on_corners(corners, depths, face_vertices), on_sigma if wants.sigma else None


def _alpha_slope(settings: Settings, on_alpha: Array, passed: Array, faces: int) -> Array:
  """What a pixel's gradient on alpha gives to each of its pairs, but for the pair's own share."""
  if settings.aggr_alpha == "sum":
    return on_alpha / faces
  # Where next to nothing passes, next to nothing would change: such tiles can be skipped.
  return jnp.where(passed > _SATURATED, on_alpha * passed, 0.0)


silhouette.defvjp(_silhouette_forward, _silhouette_backward, symbolic_zeros=True)


# --- colour ---


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def render(
  settings: Settings,
  face_vertices: Float[Array, "B F 3 3"],
  color_vertices: Float[Array, "B F 3 3"],
  textures: Float[Array, "B F T C"],
  sigma: Float[Array, ""],
  gamma: Float[Array, ""],
  background: Float[Array, "C"],
) -> Rendered:
  """Colour, alpha and, on demand, fragments. Only colour and alpha are differentiable.

  The corners come twice, so that each output has its own: alpha's gradient goes to `face_vertices`,
  whose values are drawn, and colour's to `color_vertices`, whose values are not read.
  """
  del color_vertices
  return _render(settings, face_vertices, textures, sigma, gamma, background)[0]


class _Saved(NamedTuple):
  """What the backward pass needs of the forward pass, tiled; None where the mode has no such."""

  passed: Array
  rgba: Array  # the image itself, not tiled
  nearest: Any = None
  inverse_total: Any = None  # of the weights, background included
  winner: Any = None  # the nearest face, counted within its image


@functools.partial(jax.jit, static_argnums=0)
def _render(settings: Settings, *inputs: Array) -> tuple[Rendered, _Saved]:
  return foldable(functools.partial(_draw, settings), shared=3)(*inputs)


def _draw(
  settings: Settings,
  face_vertices: Array,
  textures: Array,
  sigma: Array,
  gamma: Array,
  background: Array,
) -> tuple[Rendered, _Saved]:
  batch, faces = face_vertices.shape[:2]
  tiles = _tiles(settings, batch)
  bins = bin_faces(face_vertices, aggregate.reach_of(sigma, settings.dist_eps), settings.grid)
  flat = textures.reshape(batch * faces, *textures.shape[2:])
  winner: Any = None
  depth: Any = None
  sums: Any = None
  if settings.aggr_rgb == "hard" or settings.fragments:
    winner, depth = visibility.nearest_faces(bins, settings, sigma, tiles)
  if settings.aggr_rgb == "hard":
    color = visibility.hard_colors(bins, flat, winner, settings)
    color = jnp.where((winner >= 0)[..., None], color, background[None, None])
    passed, nearest, inverse_total = (
      aggregate.transmittance(bins, settings, sigma, tiles),
      None,
      None,
    )
    if settings.fragments:
      sums = visibility.winning_sums(winner, bins, settings)
  else:
    passed, nearest = aggregate.transmittance_and_depth(bins, settings, sigma, tiles)
    color, inverse_total = aggregate.softmax_colors(
      bins, flat, nearest, background, settings, sigma, gamma
    )
    color = jnp.swapaxes(color, 1, 2)
    if settings.fragments:
      on_image = tile_image(jnp.ones((batch, *settings.grid), jnp.float32), settings.grid)
      sums = visibility.landing_sums(
        bins, nearest, on_image * inverse_total, settings, sigma, gamma
      )
  if winner is not None:
    winner = jnp.where(winner < 0, -1, winner - _first_faces(settings, batch, faces))
  rgba = jnp.concatenate([color, _alpha(settings, passed, faces)[..., None]], axis=-1)
  fragments = _fragments(settings, winner, depth, sums, (batch, faces))
  rgba = untile_image(rgba, settings.grid)
  rendered = Rendered(rgba, *fragments)
  return rendered, _Saved(passed, rgba, nearest, inverse_total, winner)


def _first_faces(settings: Settings, batch: int, faces: int) -> np.ndarray:
  """The number of its image's first face, for each tile."""
  first = faces * np.arange(batch, dtype=np.int32)
  return np.repeat(first, settings.grid.tiles)[:, None]


def _fragments(
  settings: Settings, winner: Any, depth: Any, sums: Any, shape: tuple[int, int]
) -> tuple[Any, Any, Any]:
  """Face numbers, their depths, and landing places."""
  if sums is None:
    return None, None, None
  sums = sums[:-1].reshape(*shape, 3)
  landing = sums[..., 1:] / jnp.maximum(sums[..., :1], aggregate.TINY)
  return untile_image(winner, settings.grid), untile_image(depth, settings.grid), landing


def _render_forward(settings: Settings, *inputs: Any) -> tuple[Rendered, Any]:
  values = tuple(x.value for i, x in enumerate(inputs) if i != 1)
  wants = Wants(*(x.perturbed for x in inputs))
  rendered, saved = _render(settings, *values)
  return rendered, (values, saved, wants)


def _render_backward(settings: Settings, residuals: Any, slopes: Rendered) -> tuple[Any, ...]:
  values, saved, wants = residuals
  if isinstance(slopes.rgba, jax.custom_derivatives.SymbolicZero):
    return (None,) * 6
  return _render_slopes(settings, wants, *values[:2], saved, slopes.rgba, *values[2:])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _render_slopes(settings: Settings, wants: Wants, *inputs: Any) -> tuple[Array | None, ...]:
  pull = functools.partial(_pull, settings, wants)
  alone = wants.sigma or wants.gamma or wants.background
  mapped = sequential(pull) if alone else foldable(pull, shared=3)
  return mapped(*inputs)


def _pull(
  settings: Settings,
  wants: Wants,
  face_vertices: Array,
  textures: Array,
  saved: _Saved,
  on_rgba: Array,
  sigma: Array,
  gamma: Array,
  background: Array,
) -> tuple[Array | None, ...]:
  batch, faces = face_vertices.shape[:2]
  bins = bin_faces(face_vertices, aggregate.reach_of(sigma, settings.dist_eps), settings.grid)
  flat = textures.reshape(batch * faces, *textures.shape[2:])
  on_alpha = tile_image(on_rgba[..., -1], settings.grid)
  alpha_slope = _alpha_slope(settings, on_alpha, saved.passed, faces)
  corners, on_sigma = alpha_slopes(bins, settings, sigma, alpha_slope, wants, in_range=True)
  if settings.aggr_rgb == "hard":
    slopes = no_slopes(bins, flat)
    nobody = untile_image(saved.winner < 0, settings.grid)
    on_background = jnp.where(nobody[..., None], on_rgba[..., :-1], 0.0)
    on_gamma = jnp.zeros((), jnp.float32)
  else:
    shade = tile_image(reaching(settings, saved.rgba, on_rgba), settings.grid)
    pixels = Pixels(saved.inverse_total, saved.nearest, shade, on_rgba)
    exponent = aggregate.background_exponent(saved.nearest, settings, gamma)
    share = jnp.exp(exponent) * saved.inverse_total
    exponent, share = (untile_image(x, settings.grid) for x in (exponent, share))
    on_background = share[..., None] * on_rgba[..., :-1]
    lost = share * reaching(settings, background[None, None, None] - saved.rgba[..., :-1], on_rgba)
    on_gamma = -jnp.sum(lost * exponent) / gamma
    slopes = color_slopes(bins, flat, pixels, settings, sigma, gamma, wants)
  on_textures = slopes.textures
  if settings.aggr_rgb == "hard" and wants.textures:
    winner = jnp.where(saved.winner < 0, -1, saved.winner + _first_faces(settings, batch, faces))
    paint = functools.partial(visibility.hard_colors, bins, winner=winner, settings=settings)
    (on_textures,) = jax.vjp(paint, flat)[1](tile_image(on_rgba[..., :-1], settings.grid))
  return (
    _on_corners(corners, jnp.zeros_like(slopes.depths), face_vertices) if wants.geometry else None,
    _on_corners(slopes.corners, slopes.depths, face_vertices) if wants.color_geometry else None,
    on_textures.reshape(textures.shape) if wants.textures else None,
    on_sigma + slopes.sigma if wants.sigma else None,
    slopes.gamma + on_gamma if wants.gamma else None,
    jnp.sum(on_background, axis=(0, 1, 2)) if wants.background else None,
  )


def _on_corners(corners: Array, depths: Array, face_vertices: Array) -> Array:
  """Sums over rows, of all faces and the one for unused rows, as a gradient [B, F, 3, 3]."""
  gradient = jnp.concatenate([corners.reshape(-1, 3, 2), depths[..., None]], axis=-1)
  return gradient[:-1].reshape(face_vertices.shape)


render.defvjp(_render_forward, _render_backward, symbolic_zeros=True)
