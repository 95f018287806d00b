"""A batched, differentiable soft mesh rasterizer in pure JAX, usable without the rest."""

from umr_jax.render.mesh import hard_rasterize, render_mesh
from umr_jax.render.rasterize import Fragments, rasterize, soft_rasterize, soft_silhouette

__all__ = [
  "Fragments",
  "hard_rasterize",
  "rasterize",
  "render_mesh",
  "soft_rasterize",
  "soft_silhouette",
]
