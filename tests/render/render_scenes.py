"""Small scenes for the tests of the renderer, and the golden cases in this package's frame."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from umr_jax.render.binning import face_numbers
from umr_jax.render.rows import rows_from

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "softras.npz"
NUM_GOLDEN = 9
_FLIP = np.array([1.0, -1.0, 1.0], np.float32)
_NAMES = ("sigma", "gamma", "dist_func", "dist_eps", "aggr_rgb", "aggr_alpha", "texture_type")


def golden_case(number):
  """A golden case with y down: options, and arrays by name, images [B, H, W, 4]."""
  data = np.load(GOLDEN)
  params = json.loads(str(data["params"]))[number]
  options = {name: params[name] for name in (*_NAMES, "image_size", "near", "far", "eps")}
  options["background"] = np.array(params["background"], np.float32)
  prefix = f"case{number}/"
  arrays = {key.removeprefix(prefix): data[key] for key in data if key.startswith(prefix)}
  for name in ("face_vertices", "grad_face_vertices"):
    arrays[name] = arrays[name] * _FLIP
  for name in ("rgba", "cotangent"):
    arrays[name] = np.moveaxis(arrays[name], 1, -1)
  return options, arrays


def triangles(rng, *shape, size=0.6, depth=(2.0, 4.0)):
  """Random triangles [*shape, 3, 3] that overlap each other and the image's border."""
  center = rng.uniform(-0.9, 0.9, (*shape, 1, 2))
  xy = center + rng.uniform(-size, size, (*shape, 3, 2))
  z = rng.uniform(*depth, (*shape, 3, 1))
  return np.concatenate([xy, z], axis=-1).astype(np.float32)


def textures(rng, *shape):
  return rng.uniform(0.0, 1.0, shape).astype(np.float32)


def broken_faces():
  """Faces that may not be rendered, and must not disturb the others."""
  face = np.array([[-0.5, -0.5, 2.0], [0.5, -0.5, 2.0], [0.0, 0.5, 2.0]], np.float32)
  behind, at_eye, nan, infinite, nan_depth = (face.copy() for _ in range(5))
  behind[1, 2], at_eye[2, 2], nan_depth[0, 2] = -1.0, 0.0, np.nan
  nan[0, 0], infinite[1, 1] = np.nan, np.inf
  return np.stack([behind, at_eye, nan, infinite, nan_depth])


def awkward_faces():
  """Faces that are rendered but have no area, no size, or no end."""
  z = 2.0
  return np.array(
    [
      [[0.1, 0.1, z], [0.1, 0.1, z], [0.1, 0.1, z]],  # a point
      [[-0.5, 0.0, z], [0.5, 0.0, z], [0.0, 0.0, z]],  # a line
      [[-0.5, 0.0, z], [-0.5, 0.0, z], [0.5, 0.3, z]],  # a line: two corners in one
      [[0.2, 0.2, z], [0.2 + 1e-6, 0.2, z], [0.2, 0.2 + 1e-6, z]],  # far below a pixel
      [[-1e4, -1e4, z], [1e4, -1e4, z], [0.0, 1e4, z]],  # covers everything
      [[-1e30, 0.0, z], [1e30, 0.1, z], [0.0, 1e30, z]],  # beyond what can be squared
      [[5.0, 5.0, z], [6.0, 5.0, z], [5.0, 6.0, z]],  # off the image
      [[-0.3, -0.3, 1e30], [0.3, -0.3, 2.0], [0.0, 0.4, 1e-30]],  # depths out of all proportion
    ],
    np.float32,
  )


def jax_arrays(*arrays):
  return tuple(jnp.asarray(array) for array in arrays)


def compiled(function):
  """Jits a function with little optimisation: here compiling takes all the time, running none."""
  return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def pull_back(function, *inputs, cotangent):
  """The value of a function, and its gradients for one cotangent."""

  def both(cotangent, *inputs):
    value, pull = jax.vjp(function, *inputs)
    return value, pull(cotangent)

  return compiled(both)(jnp.asarray(cotangent, jnp.float32), *inputs)


def relative(found, expected):
  """The largest error, as a share of the largest value."""
  return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()


def in_support(corners, points, radius):
  """A face's support at points [H, W, 2]: inside it, or nearer to its outline than `radius`."""
  signs, squared = [], np.full(points.shape[:2], np.inf)
  for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
    edge, to = b - a, points - a
    signs.append(edge[0] * to[..., 1] - edge[1] * to[..., 0])
    along = np.clip(to @ edge / max(edge @ edge, 1e-20), 0.0, 1.0)
    squared = np.minimum(squared, np.square(to - along[..., None] * edge).sum(-1))
  inside = np.all(np.array(signs) > 0, axis=0) | np.all(np.array(signs) < 0, axis=0)
  return inside | (squared < radius**2)


def rows_of(faces, pixels):
  """One row per face; the tile is a single pixel."""
  x, y, z = (tuple(jnp.asarray(faces[:, i, axis]) for i in range(3)) for axis in range(3))
  index = jnp.arange(len(faces))
  return rows_from(
    index,
    jnp.zeros_like(index),
    jnp.stack(face_numbers(x, y, z), axis=-1)[:, None],
    jnp.asarray(pixels[:, 0:1]),
    jnp.asarray(pixels[:, 1:2]),
    jnp.ones((len(faces), 1), bool),
  )
