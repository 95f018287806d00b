"""A batched, differentiable soft mesh rasterizer in pure JAX, usable without the rest."""

from umr_jax.render.mesh import hard_rasterize, render_mesh
from umr_jax.render.rasterize import rasterize, soft_rasterize, soft_silhouette
from umr_jax.render.settings import Fragments, RenderSettings

__all__ = [
  "Fragments",
  "RenderSettings",
  "hard_rasterize",
  "rasterize",
  "render_mesh",
  "soft_rasterize",
  "soft_silhouette",
]
