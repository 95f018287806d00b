"""shaded_colors: where the lamp is, and that no face is left without a colour."""

import jax
import jax.numpy as jnp
import numpy as np

from umr_jax.render.shade import face_normals, shaded_colors


def tilted(x, y):
  """A triangle whose normal, towards the viewer, leans to (x, y)."""
  normal = np.array([x, y, -1.0])
  first = np.cross(normal, [0.0, 1.0, 0.0])
  return np.stack([np.zeros(3), first, np.cross(normal, first)]).astype(np.float32)


FACES = np.array([[0, 1, 2]], np.int32)


def test_normals_match_the_cross_product_and_face_the_viewer(rng):
  vertices = rng.standard_normal((2, 9, 3)).astype(np.float32)
  faces = rng.permuted(np.tile(np.arange(9, dtype=np.int32), (5, 1)), axis=1)[:, :3]
  found = np.asarray(face_normals(jnp.asarray(vertices), faces))
  for b in range(2):
    for f, (i, j, k) in enumerate(faces):
      normal = np.cross(vertices[b, j] - vertices[b, i], vertices[b, k] - vertices[b, i])
      normal /= np.linalg.norm(normal)
      np.testing.assert_allclose(found[b, f], -np.sign(normal[2]) * normal, atol=1e-5)
  assert (found[..., 2] <= 0.0).all()


def test_the_lamp_is_at_the_upper_left():
  light = {
    name: float(shaded_colors(jnp.asarray(tilted(*lean)), FACES)[0, 0, 0])
    for name, lean in dict(
      up_left=(-1.0, -1.0), flat=(0.0, 0.0), right=(1.0, 0.0), down_right=(1.0, 1.0)
    ).items()
  }
  assert light["up_left"] > light["flat"] > light["right"] >= light["down_right"] > 0.0


def test_winding_does_not_matter():
  triangle = jnp.asarray(tilted(0.3, -0.5))
  np.testing.assert_allclose(
    shaded_colors(triangle, FACES), shaded_colors(triangle, FACES[:, ::-1].copy()), atol=1e-6
  )


def test_slivers_have_a_colour_and_a_finite_gradient():
  vertices = jnp.zeros((2, 3, 3))
  colors = shaded_colors(vertices, FACES)
  assert colors.shape == (2, 1, 1, 3)
  assert (np.asarray(colors) > 0.0).all()
  gradient = jax.grad(lambda v: jnp.sum(shaded_colors(v, FACES)))(vertices)
  assert np.isfinite(gradient).all()
