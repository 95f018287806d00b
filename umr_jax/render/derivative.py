"""The passes put together into images of colour and alpha, and the images' derivative.

The derivative is written out (`jax.custom_vjp`), for two reasons: SoftRas defines one that
automatic differentiation of the image would not give, and the backward pass recomputes its way
through the faces instead of storing pixels x faces.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from umr_jax.render import aggregate, visibility
from umr_jax.render.binning import bin_faces, tile_image, untile_image
from umr_jax.render.folding import foldable, sequential
from umr_jax.render.pairs import BlendParams, Settings, blur_radius
from umr_jax.render.partials import (
  NeedsGradient,
  Pixels,
  alpha_vjp,
  color_vjp,
  geometry_dot,
  zero_partials,
)
from umr_jax.render.silhouette import alpha_of, corner_gradient, pair_cotangent


class Rendered(NamedTuple):
  """One raster; the last three only where `Settings.fragments` asks for them, None otherwise."""

  rgba: Float[Array, "B H W C1"]  # any number of channels of colour, then alpha
  face_ids: Int[Array, "B H W"] | None  # counted within each image; -1 for none
  face_depth: Float[Array, "B H W"] | None  # of that face; infinite where there is none
  projected_centroids: Float[Array, "B F 2"] | None


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
  whose values are rendered, and colour's to `color_vertices`, whose values are not read.

  Args:
    settings: of the rasterizer.
    face_vertices: corners in image space.
    color_vertices: the corners that get colour's gradient.
    textures: of all faces.
    sigma: softness of outlines.
    gamma: softness of occlusion.
    background: colour where no face is.
  """
  del color_vertices
  return _render(settings, face_vertices, textures, BlendParams(sigma, gamma, background))[0]


class _Saved(NamedTuple):
  """What the backward pass needs of the forward pass, tiled; None where the mode has no such."""

  transmittance: Array
  rgba: Array  # the image itself, not tiled
  nearest: Any = None
  inverse_total: Any = None  # of the weights, background included
  nearest_face: Any = None  # the nearest face, counted within its image


@functools.partial(jax.jit, static_argnums=0)
def _render(
  settings: Settings, face_vertices: Array, textures: Array, blend: BlendParams
) -> tuple[Rendered, _Saved]:
  function = functools.partial(_batch_render, settings)
  return foldable(function)(face_vertices, textures, blend)


def _batch_render(
  settings: Settings,
  face_vertices: Array,
  textures: Array,
  blend: BlendParams,
) -> tuple[Rendered, _Saved]:
  sigma, gamma, background = blend
  batch, faces = face_vertices.shape[:2]
  tiles = batch * settings.grid.tiles
  bins = bin_faces(face_vertices, blur_radius(sigma, settings.dist_eps), settings.grid)
  flat = textures.reshape(batch * faces, *textures.shape[2:])
  nearest_face: Any = None
  depth: Any = None
  sums: Any = None
  if settings.aggr_rgb == "hard" or settings.fragments:
    nearest_face, depth = visibility.nearest_faces(bins, settings, sigma, tiles)
  if settings.aggr_rgb == "hard":
    color = visibility.hard_colors(bins, flat, nearest_face, settings)
    color = jnp.where((nearest_face >= 0)[..., None], color, background[None, None])
    transmittance = aggregate.transmittance(bins, settings, sigma, tiles)
    nearest, inverse_total = None, None
    if settings.fragments:
      sums = visibility.hard_centroid_sums(nearest_face, bins, settings)
  else:
    transmittance, nearest = aggregate.transmittance_and_depth(bins, settings, sigma, tiles)
    color, inverse_total = aggregate.softmax_colors(
      bins, flat, nearest, background, settings, sigma, gamma
    )
    color = jnp.swapaxes(color, 1, 2)
    if settings.fragments:
      on_image = tile_image(jnp.ones((batch, *settings.grid), jnp.float32), settings.grid)
      sums = visibility.soft_centroid_sums(
        bins, nearest, on_image * inverse_total, settings, sigma, gamma
      )
  if nearest_face is not None:
    nearest_face = jnp.where(
      nearest_face < 0, -1, nearest_face - _first_faces(settings, batch, faces)
    )
  rgba = jnp.concatenate([color, alpha_of(settings, transmittance, faces)[..., None]], axis=-1)
  fragments = _fragments(settings, nearest_face, depth, sums, (batch, faces))
  rgba = untile_image(rgba, settings.grid)
  rendered = Rendered(rgba, *fragments)
  return rendered, _Saved(transmittance, rgba, nearest, inverse_total, nearest_face)


def _first_faces(settings: Settings, batch: int, faces: int) -> np.ndarray:
  """The number of its image's first face, for each tile."""
  first = faces * np.arange(batch, dtype=np.int32)
  return np.repeat(first, settings.grid.tiles)[:, None]


def _fragments(
  settings: Settings, nearest_face: Any, depth: Any, sums: Any, shape: tuple[int, int]
) -> tuple[Any, Any, Any]:
  """Face numbers, their depths, and projected centroids."""
  if sums is None:
    return None, None, None
  sums = sums[:-1].reshape(*shape, 3)
  projected_centroids = sums[..., 1:] / jnp.maximum(sums[..., :1], aggregate.TINY)
  return (
    untile_image(nearest_face, settings.grid),
    untile_image(depth, settings.grid),
    projected_centroids,
  )


def _render_forward(settings: Settings, *inputs: Any) -> tuple[Rendered, Any]:
  face_vertices, _, textures, *blend = (x.value for x in inputs)
  values = (face_vertices, textures, BlendParams(*blend))
  needs = NeedsGradient(*(x.perturbed for x in inputs))
  rendered, saved = _render(settings, *values)
  return rendered, (values, saved, needs)


def _render_backward(settings: Settings, residuals: Any, cotangents: Rendered) -> tuple[Any, ...]:
  (face_vertices, textures, blend), saved, needs = residuals
  if isinstance(cotangents.rgba, jax.custom_derivatives.SymbolicZero):
    return (None,) * 6
  return _render_vjp(settings, needs, face_vertices, textures, saved, cotangents.rgba, blend)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _render_vjp(settings: Settings, needs: NeedsGradient, *inputs: Any) -> tuple[Array | None, ...]:
  vjp = functools.partial(_batch_render_vjp, settings, needs)
  alone = needs.sigma or needs.gamma or needs.background
  mapped = sequential(vjp) if alone else foldable(vjp)
  return mapped(*inputs)


def _batch_render_vjp(
  settings: Settings,
  needs: NeedsGradient,
  face_vertices: Array,
  textures: Array,
  saved: _Saved,
  on_rgba: Array,
  blend: BlendParams,
) -> tuple[Array | None, ...]:
  sigma, gamma, background = blend
  batch, faces = face_vertices.shape[:2]
  bins = bin_faces(face_vertices, blur_radius(sigma, settings.dist_eps), settings.grid)
  flat = textures.reshape(batch * faces, *textures.shape[2:])
  on_alpha = tile_image(on_rgba[..., -1], settings.grid)
  alpha_cotangent = pair_cotangent(settings, on_alpha, saved.transmittance, faces)
  corners, sigma_partial = alpha_vjp(bins, settings, sigma, alpha_cotangent, needs, in_range=True)
  if settings.aggr_rgb == "hard":
    partials = zero_partials(bins, flat)
    uncovered = untile_image(saved.nearest_face < 0, settings.grid)
    on_background = jnp.where(uncovered[..., None], on_rgba[..., :-1], 0.0)
    gamma_partial = jnp.zeros((), jnp.float32)
  else:
    image_dot = tile_image(geometry_dot(settings, saved.rgba, on_rgba), settings.grid)
    pixels = Pixels(saved.inverse_total, saved.nearest, image_dot, on_rgba)
    exponent = aggregate.background_exponent(saved.nearest, settings, gamma)
    share = jnp.exp(exponent) * saved.inverse_total
    exponent, share = (untile_image(x, settings.grid) for x in (exponent, share))
    on_background = share[..., None] * on_rgba[..., :-1]
    lost = share * geometry_dot(
      settings, background[None, None, None] - saved.rgba[..., :-1], on_rgba
    )
    gamma_partial = -jnp.sum(lost * exponent) / gamma
    partials = color_vjp(bins, flat, pixels, settings, sigma, gamma, needs)
  on_textures = partials.textures
  if settings.aggr_rgb == "hard" and needs.textures:
    nearest_face = jnp.where(
      saved.nearest_face < 0, -1, saved.nearest_face + _first_faces(settings, batch, faces)
    )
    colors = functools.partial(
      visibility.hard_colors, bins, nearest_face=nearest_face, settings=settings
    )
    (on_textures,) = jax.vjp(colors, flat)[1](tile_image(on_rgba[..., :-1], settings.grid))
  on_faces = corner_gradient(corners, jnp.zeros_like(partials.depths), face_vertices)
  by_color = corner_gradient(partials.corners, partials.depths, face_vertices)
  return (
    on_faces if needs.geometry else None,
    by_color if needs.color_geometry else None,
    on_textures.reshape(textures.shape) if needs.textures else None,
    sigma_partial + partials.sigma if needs.sigma else None,
    partials.gamma + gamma_partial if needs.gamma else None,
    jnp.sum(on_background, axis=(0, 1, 2)) if needs.background else None,
  )


render.defvjp(_render_forward, _render_backward, symbolic_zeros=True)
