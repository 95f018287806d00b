"""Fitting a mesh to silhouettes from known cameras: the example of the rasterizer alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from umr_jax.checking import checked
from umr_jax.geometry import camera
from umr_jax.render import render_mesh, soft_silhouette


@checked
def views_of(
  vertices: Float[Array, "V 3"],
  faces: Int[Array | np.ndarray, "F 3"],
  cameras: Float[Array, "N 7"],
  *,
  image_size: int,
  sigma: float = 1e-4,
) -> Float[Array, "N H W"]:
  """One mesh's silhouettes under N cameras.

  Args:
    vertices: of the mesh.
    faces: corners of each face.
    cameras: of each image.
    image_size: pixels a side.
    sigma: softness of outlines.
  """
  spread = jnp.broadcast_to(vertices, (cameras.shape[0], *vertices.shape))
  corners = camera.project_faces(spread, cameras, faces)
  return soft_silhouette(corners, image_size=image_size, sigma=sigma)


@checked
def silhouette_iou(a: Float[Array, "N H W"], b: Float[Array, "N H W"]) -> Float[Array, ""]:
  """The mean over images of the soft intersection over union, min over max.

  Args:
    a: silhouettes in [0, 1].
    b: silhouettes in [0, 1].
  """
  both, either = (jnp.sum(f(a, b), axis=(1, 2)) for f in (jnp.minimum, jnp.maximum))
  return jnp.mean(both / jnp.maximum(either, 1e-6))


@checked
def fit_silhouettes(
  target: Float[Array, "N H W"],
  cameras: Float[Array, "N 7"],
  vertices: Float[Array, "V 3"],
  faces: Int[np.ndarray, "F 3"],
  *,
  steps: int = 300,
  rate: float = 0.01,
  smoothness: float = 0.1,
  sigma: float = 1e-4,
) -> Float[Array, "V 3"]:
  """Moves a mesh's vertices until its silhouettes are the given ones.

  Args:
    target: square silhouettes in [0, 1].
    cameras: of each image.
    vertices: where to start.
    faces: corners of each face.
    steps: gradient steps, of Adam.
    rate: of the steps, in object units.
    smoothness: weight of the squared differences of neighbours' offsets, against 1 - IoU.
    sigma: of the rasterizer.

  Returns:
    The vertices moved.
  """
  sides = np.asarray(faces)[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
  edges = np.unique(np.sort(sides, axis=-1), axis=0)
  size = target.shape[-1]

  def loss(offsets: Array) -> Array:
    views = views_of(vertices + offsets, faces, cameras, image_size=size, sigma=sigma)
    bent = jnp.sum(jnp.square(offsets[edges[:, 0]] - offsets[edges[:, 1]]), axis=-1)
    rough = 0.1 * vertices.shape[0] * jnp.mean(bent)
    return 1.0 - silhouette_iou(views, target) + smoothness * rough

  optimizer = optax.adam(rate)

  def step(_: Array, carry: tuple[Array, optax.OptState]) -> tuple[Array, optax.OptState]:
    offsets, state = carry
    updates, state = optimizer.update(jax.grad(loss)(offsets), state)
    return optax.apply_updates(offsets, updates), state

  start = jnp.zeros_like(vertices)
  # optax's bias correction raises a float to an integer power.
  with jax.numpy_dtype_promotion("standard"):
    offsets, _ = jax.lax.fori_loop(0, steps, step, (start, optimizer.init(start)))
  return vertices + offsets


@checked
def colored_views(
  vertices: Float[Array, "V 3"], faces: Int[np.ndarray, "F 3"], cameras: Float[Array, "N 7"]
) -> Float[np.ndarray, "S W 3"]:
  """Views of a mesh, coloured by where its vertices are, side by side on white.

  Args:
    vertices: of the mesh.
    faces: corners of each face.
    cameras: of each view.
  """
  meshes = jnp.broadcast_to(vertices, (len(cameras), *vertices.shape))
  colors = jnp.clip(0.5 + 0.5 * meshes, 0.0, 1.0)
  views = render_mesh(
    meshes, faces, cameras, image_size=160, vertex_colors=colors, mode="hard", antialias=2
  )
  return np.concatenate(list(np.asarray(views[..., :3] * views[..., 3:] + 1 - views[..., 3:])), 1)
