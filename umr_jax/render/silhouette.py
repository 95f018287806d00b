"""Alpha alone: the silhouette and its derivative, and what these share with colour's."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.render import aggregate
from umr_jax.render.binning import bin_faces, tile_image, untile_image
from umr_jax.render.folding import foldable, sequential
from umr_jax.render.pairs import Settings, blur_radius
from umr_jax.render.partials import NeedsGradient, alpha_vjp

# At a smaller transmittance alpha has no gradient that float32 could add to anything.
_SATURATED = 1e-12


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def silhouette(
  settings: Settings, face_vertices: Float[Array, "B F 3 3"], sigma: Float[Array, ""]
) -> Float[Array, "B H W"]:
  """Alpha alone, differentiable in the corners' x and y and in sigma.

  Args:
    settings: of the rasterizer.
    face_vertices: corners in image space.
    sigma: softness of outlines.
  """
  transmittance = _transmittance(settings, face_vertices, sigma)
  return untile_image(alpha_of(settings, transmittance, face_vertices.shape[1]), settings.grid)


def alpha_of(settings: Settings, transmittance: Array, faces: int) -> Array:
  """Alpha of pixels.

  Args:
    settings: of the rasterizer.
    transmittance: see `aggregate.transmittance`.
    faces: how many an image has.
  """
  return transmittance / faces if settings.aggr_alpha == "sum" else 1.0 - transmittance


@functools.partial(jax.jit, static_argnums=0)
def _transmittance(settings: Settings, face_vertices: Array, sigma: Array) -> Array:
  function = functools.partial(_batch_transmittance, settings)
  return foldable(function)(face_vertices, sigma)


def _batch_transmittance(settings: Settings, face_vertices: Array, sigma: Array) -> Array:
  radius = blur_radius(sigma, settings.dist_eps)
  bins = bin_faces(face_vertices, radius, settings.grid)
  tiles = face_vertices.shape[0] * settings.grid.tiles
  return aggregate.transmittance(bins, settings, sigma, tiles)


def _silhouette_forward(settings: Settings, face_vertices: Any, sigma: Any) -> tuple[Array, Any]:
  needs = NeedsGradient(geometry=face_vertices.perturbed, sigma=sigma.perturbed)
  transmittance = _transmittance(settings, face_vertices.value, sigma.value)
  image = untile_image(
    alpha_of(settings, transmittance, face_vertices.value.shape[1]), settings.grid
  )
  return image, (face_vertices.value, sigma.value, transmittance, needs)


def _silhouette_backward(settings: Settings, saved: Any, cotangent: Any) -> tuple[Any, Any]:
  face_vertices, sigma, transmittance, needs = saved
  if isinstance(cotangent, jax.custom_derivatives.SymbolicZero):
    return None, None
  return _silhouette_vjp(settings, needs, face_vertices, transmittance, cotangent, sigma)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _silhouette_vjp(
  settings: Settings,
  needs: NeedsGradient,
  face_vertices: Array,
  transmittance: Array,
  cotangent: Array,
  sigma: Array,
) -> tuple[Array, Array | None]:
  vjp = functools.partial(_batch_silhouette_vjp, settings, needs)
  # The gradient on sigma has no batch, so the batches of a vmap cannot become one.
  mapped = sequential(vjp) if needs.sigma else foldable(vjp)
  return mapped(face_vertices, transmittance, cotangent, sigma)


def _batch_silhouette_vjp(
  settings: Settings,
  needs: NeedsGradient,
  face_vertices: Array,
  transmittance: Array,
  cotangent: Array,
  sigma: Array,
) -> tuple[Array, Array | None]:
  radius = blur_radius(sigma, settings.dist_eps)
  bins = bin_faces(face_vertices, radius, settings.grid)
  cotangent = tile_image(cotangent, settings.grid)
  alpha_cotangent = pair_cotangent(settings, cotangent, transmittance, face_vertices.shape[1])
  corners, sigma_partial = alpha_vjp(bins, settings, sigma, alpha_cotangent, needs, in_range=False)
  depths = jnp.zeros((corners.shape[0], 3), jnp.float32)
  return corner_gradient(corners, depths, face_vertices), sigma_partial if needs.sigma else None


def pair_cotangent(settings: Settings, on_alpha: Array, transmittance: Array, faces: int) -> Array:
  """A pixel's gradient on alpha as a factor of that on each of its pairs' distances.

  Args:
    settings: of the rasterizer.
    on_alpha: the gradient on alpha.
    transmittance: see `aggregate.transmittance`.
    faces: how many an image has.
  """
  if settings.aggr_alpha == "sum":
    return on_alpha / faces
  # Tiles where all of it is zero are skipped.
  return jnp.where(transmittance > _SATURATED, on_alpha * transmittance, 0.0)


def corner_gradient(corners: Array, depths: Array, face_vertices: Array) -> Array:
  """Sums over rows, of all faces and the one for unused rows, as a gradient [B, F, 3, 3].

  Args:
    corners: [N + 1, 6], of x and y.
    depths: [N + 1, 3].
    face_vertices: whose gradient it is.
  """
  gradient = jnp.concatenate([corners.reshape(-1, 3, 2), depths[..., None]], axis=-1)
  return gradient[:-1].reshape(face_vertices.shape)


silhouette.defvjp(_silhouette_forward, _silhouette_backward, symbolic_zeros=True)
