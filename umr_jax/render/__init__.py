"""A batched, differentiable soft mesh rasterizer in pure JAX, usable without the rest."""

from umr_jax.render.rasterize import Fragments, rasterize, soft_rasterize, soft_silhouette

__all__ = ["Fragments", "rasterize", "soft_rasterize", "soft_silhouette"]
