"""Deforms a sphere until its silhouettes are those of another shape: the rasterizer, used alone.

  python -m experiments.fit_silhouettes --workdir=runs/fit_silhouettes

Leaves fit.png there: for each of six views the target, the sphere, and the fitted mesh.
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from PIL import Image

from experiments import launch
from umr_jax.geometry import camera
from umr_jax.geometry.icosphere import icosphere
from umr_jax.render import render_mesh, soft_silhouette

_WORKDIR = flags.DEFINE_string("workdir", "runs/fit_silhouettes", "Where the picture is written.")
_STEPS = flags.DEFINE_integer("steps", 300, "Gradient steps.", lower_bound=1)
_VIEWS, _SIZE, _SMOOTHNESS = 24, 64, 0.1


def run(workdir: pathlib.Path, *, steps: int) -> dict[str, Any]:
  """Fits, writes the picture, and returns the silhouettes' IoU before and after."""
  sphere, faces = icosphere(3)
  start = jnp.asarray(0.8 * sphere, jnp.float32)
  bumps = 1.0 + 0.3 * np.sin(4.0 * sphere[:, :1]) * np.cos(3.0 * sphere[:, 2:])
  goal = jnp.asarray(sphere * bumps * [1.0, 0.6, 0.8] + 0.3 * sphere[:, :1] ** 2, jnp.float32)
  turns = jax.random.normal(jax.random.key(0), (_VIEWS, 4))
  turns /= jnp.linalg.norm(turns, axis=-1, keepdims=True)
  cameras = jnp.concatenate([jnp.tile(jnp.array([0.65, 0.0, 0.0]), (_VIEWS, 1)), turns], axis=-1)

  def silhouettes(vertices: jax.Array) -> jax.Array:
    seen = camera.project(jnp.broadcast_to(vertices, (_VIEWS, *vertices.shape)), cameras)
    return soft_silhouette(camera.face_vertices(seen, faces), image_size=_SIZE, sigma=1e-4)

  target = silhouettes(goal)
  edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])

  def iou(image: jax.Array) -> jax.Array:
    return jnp.mean(jnp.sum(image * target, (1, 2)) / jnp.sum(jnp.maximum(image, target), (1, 2)))

  def loss(offsets: jax.Array) -> jax.Array:
    bent = jnp.mean(jnp.sum(jnp.square(offsets[edges[:, 0]] - offsets[edges[:, 1]]), axis=-1))
    return 1.0 - iou(silhouettes(start + offsets)) + _SMOOTHNESS * bent * len(sphere) / 10.0

  optimizer = optax.adam(0.01)

  @jax.jit
  def step(_: int, state: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
    updates, moments = optimizer.update(jax.grad(loss)(state[0]), state[1])
    return state[0] + updates, moments

  offsets = jnp.zeros_like(start)
  offsets, _ = jax.lax.fori_loop(0, steps, step, (offsets, optimizer.init(offsets)))
  workdir.mkdir(parents=True, exist_ok=True)
  rows = [_shaded(mesh, faces, cameras[:6]) for mesh in (goal, start, start + offsets)]
  Image.fromarray(np.uint8(255 * np.concatenate(rows))).save(workdir / "fit.png")
  before, after = (float(iou(silhouettes(mesh))) for mesh in (start, start + offsets))
  return {"iou_before": before, "iou_after": after, "picture": str(workdir / "fit.png")}


def _shaded(vertices: jax.Array, faces: np.ndarray, cameras: jax.Array) -> np.ndarray:
  """Views of a mesh, coloured by where its vertices are, side by side on white."""
  count = len(cameras)
  meshes = jnp.broadcast_to(vertices, (count, *vertices.shape))
  colors = jnp.clip(0.5 + 0.5 * meshes, 0.0, 1.0)
  views = render_mesh(
    meshes, faces, cameras, image_size=160, vertex_colors=colors, mode="hard", antialias=2
  )
  views = views[..., :3] * views[..., 3:] + 1.0 - views[..., 3:]
  return np.concatenate(list(np.asarray(views)), axis=1)


def main() -> dict[str, Any]:
  """Runs what the flags say."""
  return run(pathlib.Path(_WORKDIR.value), steps=_STEPS.value)


if __name__ == "__main__":
  launch.launch(main)
