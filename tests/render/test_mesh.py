"""render_mesh: a mesh, a camera, and colours by vertex or by map."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.render import render_scenes as scenes
from umr_jax.geometry import camera as camera_lib
from umr_jax.geometry.icosphere import icosphere
from umr_jax.render import hard_rasterize, render_mesh, soft_rasterize

CAMERAS = np.array(
  [[0.6, 0.1, -0.05, 0.9238795, 0.0, 0.3826834, 0.0], [0.4, -0.3, 0.2, 0.7071068, 0.7071068, 0, 0]],
  np.float32,
)
SIZE = 24


@pytest.fixture(scope="module")
def mesh():
  vertices, faces = icosphere(1)
  vertices = vertices * np.array([1.0, 0.5, 0.7]) + 0.1 * vertices[:, :1] ** 2
  return jnp.asarray(np.stack([vertices, 0.8 * vertices]), jnp.float32), faces


def test_vertex_colours_are_those_of_the_faces_corners(mesh, rng):
  vertices, faces = mesh
  colors = jnp.asarray(rng.random((2, vertices.shape[1], 4)), jnp.float32)
  found = render_mesh(
    vertices,
    faces,
    jnp.asarray(CAMERAS),
    image_size=SIZE,
    vertex_colors=colors,
    sigma=1e-3,
    background=0.5,
  )
  corners = camera_lib.face_vertices(camera_lib.project(vertices, jnp.asarray(CAMERAS)), faces)
  expected = soft_rasterize(
    corners,
    colors[:, faces],
    image_size=SIZE,
    sigma=1e-3,
    texture_type="vertex",
    background=0.5,
  )
  np.testing.assert_allclose(found, expected, atol=1e-6)
  assert found.shape == (2, SIZE, SIZE, 5)


def plane(depth=0.0):
  """Two triangles that fill the image under the identity camera, and where they read the map."""
  xy = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32)
  vertices = np.concatenate([xy, np.full((4, 1), depth, np.float32)], axis=-1)
  faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
  return jnp.asarray(vertices), faces, xy


IDENTITY = np.array([1, 0, 0, 1, 0, 0, 0], np.float32)


@pytest.mark.parametrize("per_corner", [False, True])
def test_a_map_on_a_plane_is_seen_as_it_is(per_corner):
  vertices, faces, uv = plane()
  row, column = np.mgrid[:16, :16]
  texture = np.stack([row / 15, column / 15, (row + column) / 30], axis=-1).astype(np.float32)
  image = render_mesh(
    vertices,
    faces,
    jnp.asarray(IDENTITY),
    image_size=16,
    uv_texture=jnp.asarray(texture),
    uv=uv[faces] if per_corner else uv,
    texels_per_side=16,
    mode="hard",
    antialias=2,
  )
  np.testing.assert_allclose(image[..., 3], 1.0)
  # A texel is a sixteenth of the plane: nothing is read further from its place than that.
  np.testing.assert_allclose(image[..., :3], texture, atol=0.08)


def test_hard_images_are_covered_or_not_without_lines_along_the_edges(mesh, rng):
  vertices, faces = mesh
  colors = jnp.ones((2, vertices.shape[1], 3))
  image = np.asarray(
    render_mesh(
      vertices, faces, jnp.asarray(CAMERAS), image_size=SIZE, vertex_colors=colors, mode="hard",
      background=0.25,
    )
  )  # fmt: skip
  assert set(np.unique(image[..., 3])) == {0.0, 1.0}
  np.testing.assert_allclose(image[image[..., 3] == 1.0][:, :3], 1.0, rtol=1e-6)
  np.testing.assert_array_equal(image[image[..., 3] == 0.0][:, :3], 0.25)
  smooth = render_mesh(
    vertices, faces, jnp.asarray(CAMERAS), image_size=SIZE, vertex_colors=colors, mode="hard",
    antialias=4,
  )  # fmt: skip
  partly = (smooth[..., 3] > 0.0) & (smooth[..., 3] < 1.0)
  assert partly.any()
  # Straight colour: the border is as white as the middle.
  np.testing.assert_allclose(np.asarray(smooth)[np.asarray(partly)][:, :3], 1.0, rtol=1e-5)


def test_rectangular_hard_images_keep_their_proportions(rng):
  faces = jnp.asarray(scenes.triangles(rng, 3, size=0.3))
  image = hard_rasterize(faces, jnp.ones((3, 1, 1)), image_size=(10, 14), antialias=2)
  assert image.shape == (10, 14, 2)


def test_gradients_reach_vertices_cameras_and_both_kinds_of_colour(mesh, rng):
  vertices, faces = mesh
  weights = jnp.asarray(rng.standard_normal((2, SIZE, SIZE, 4)), jnp.float32)
  uv = np.asarray(vertices[0, :, :2])

  def total(vertices, camera, colors, texture):
    options = dict(image_size=SIZE, sigma=1e-3)
    image = render_mesh(vertices, faces, camera, vertex_colors=colors, **options)
    image += render_mesh(vertices, faces, camera, uv_texture=texture, uv=uv, **options)
    return jnp.sum(weights * image)

  inputs = scenes.jax_arrays(
    vertices, CAMERAS, rng.random((2, vertices.shape[1], 3), np.float32),
    rng.random((2, 8, 8, 3), np.float32),
  )  # fmt: skip
  for gradient in scenes.compiled(jax.grad(total, argnums=(0, 1, 2, 3)))(*inputs):
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient).reshape(2, -1).max(axis=1) > 0.0).all()


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ({}, "either vertex_colors or uv_texture"),
    ({"vertex_colors": 3, "uv_texture": 3}, "either vertex_colors or uv_texture"),
    ({"uv_texture": 3}, "need each other"),
    ({"vertex_colors": 3, "uv": 3}, "need each other"),
    ({"uv_texture": 3, "uv": 3, "texels_per_side": 0}, "texels_per_side"),
  ],
)
def test_colours_without_meaning_are_refused(given, message):
  vertices, faces, uv = plane()
  values = {"vertex_colors": jnp.ones((4, 3)), "uv_texture": jnp.ones((8, 8, 3)), "uv": uv}
  options = {name: values.get(name, value) for name, value in given.items()}
  with pytest.raises(ValueError, match=message):
    render_mesh(vertices, faces, jnp.asarray(IDENTITY), image_size=8, **options)


@pytest.mark.parametrize(
  ("faces", "vertex"), [([[0, 1, 99]], 99), ([[1, 2, -1]], -1), ([[1, 2, 3], [1, 3, 4]], 4)]
)
def test_faces_of_vertices_that_do_not_exist_are_refused(faces, vertex):
  vertices, _, _ = plane()
  options = dict(image_size=8, vertex_colors=jnp.ones((4, 3)))
  message = f"faces name vertex {vertex} of 4; indices begin at 0"
  with pytest.raises(ValueError, match=message):
    render_mesh(vertices, faces, IDENTITY, **options)

  def total(vertices):
    return jnp.sum(render_mesh(vertices, faces, IDENTITY, **options))

  # Faces that are not traced themselves are still known.
  with pytest.raises(ValueError, match=message):
    jax.jit(total)(vertices)


def test_traced_faces_are_rendered():
  vertices, faces, _ = plane()
  options = dict(image_size=8, vertex_colors=jnp.ones((4, 3)))
  expected = render_mesh(vertices, faces, IDENTITY, **options)
  found = jax.jit(lambda f: render_mesh(vertices, f, IDENTITY, **options))(faces)
  np.testing.assert_allclose(found, expected, atol=1e-6)
