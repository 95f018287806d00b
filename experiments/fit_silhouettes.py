"""Deforms a sphere until its silhouettes are those of another shape: the rasterizer, used alone.

  python -m experiments.fit_silhouettes --workdir=runs/fit_silhouettes

Leaves fit.png there. Rows: the target, the sphere, the fitted mesh; columns: six of 24 views.
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from PIL import Image

from experiments.studies import silhouette_fitting
from umr_jax.geometry.icosphere import icosphere
from umr_jax.launch import launch

_WORKDIR = flags.DEFINE_string("workdir", "runs/fit_silhouettes", "Where the figure is written.")
_STEPS = flags.DEFINE_integer("steps", 300, "Gradient steps.", lower_bound=1)
_VIEWS, _SIZE, _SHOWN = 24, 64, 6


def run(workdir: pathlib.Path, *, steps: int) -> dict[str, Any]:
  """Fits, writes the figure, and returns the silhouettes' IoU before and after."""
  sphere, faces = icosphere(3)
  bumps = 1.0 + 0.3 * np.sin(4.0 * sphere[:, :1]) * np.cos(3.0 * sphere[:, 2:])
  goal = jnp.asarray(sphere * bumps * [1.0, 0.6, 0.8] + 0.3 * sphere[:, :1] ** 2, jnp.float32)
  start = jnp.asarray(0.8 * sphere, jnp.float32)
  turns = jax.random.normal(jax.random.key(0), (_VIEWS, 4))
  turns /= jnp.linalg.norm(turns, axis=-1, keepdims=True)
  cameras = jnp.concatenate([jnp.tile(jnp.array([0.65, 0.0, 0.0]), (_VIEWS, 1)), turns], axis=-1)

  target, before = (
    silhouette_fitting.views_of(m, faces, cameras, image_size=_SIZE) for m in (goal, start)
  )
  fitted = silhouette_fitting.fit_silhouettes(target, cameras, start, faces, steps=steps)
  after = silhouette_fitting.views_of(fitted, faces, cameras, image_size=_SIZE)

  workdir.mkdir(parents=True, exist_ok=True)
  rows = [
    silhouette_fitting.colored_views(mesh, faces, cameras[:_SHOWN])
    for mesh in (goal, start, fitted)
  ]
  Image.fromarray(np.uint8(255 * np.concatenate(rows))).save(workdir / "fit.png")
  first, last = (float(silhouette_fitting.silhouette_iou(view, target)) for view in (before, after))
  return {"iou_before": first, "iou_after": last, "image": str(workdir / "fit.png")}


def main() -> dict[str, Any]:
  """Runs the fit with the flags' values."""
  return run(pathlib.Path(_WORKDIR.value), steps=_STEPS.value)


if __name__ == "__main__":
  launch(main)
