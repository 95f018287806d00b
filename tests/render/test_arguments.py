"""What the public functions take: anything that jax.numpy takes, of the right shape."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.render import render_scenes as scenes
from umr_jax.render import rasterize, render_mesh, soft_rasterize, soft_silhouette


@pytest.mark.parametrize(
  ("faces", "texels", "message"),
  [
    ((2, 3, 2), (2, 4, 3), r"face_vertices: found shape (2, 3, 2); expected (..., F, 3, 3)"),
    ((3,), (2, 4, 3), r"face_vertices: found shape (3,); expected (..., F, 3, 3)"),
    ((5, 2, 3, 3), (2, 4, 3), r"textures: found shape (2, 4, 3); expected (5, 2, T, C)"),
  ],
)
def test_a_wrong_shape_is_one_short_sentence(faces, texels, message):
  with pytest.raises(ValueError) as caught:
    soft_rasterize(np.ones(faces), np.ones(texels), image_size=4)
  assert str(caught.value) == message
  if message.startswith("face"):
    with pytest.raises(ValueError) as caught:
      soft_silhouette(np.ones(faces), image_size=4)
    assert str(caught.value) == message


@pytest.mark.parametrize(
  ("faces", "message"),
  [([[1.0], [1.0, 2.0]], "found no array of numbers but list"), (np.ones(3, bool), "found bool")],
)
def test_what_is_no_array_of_numbers_is_refused(faces, message):
  with pytest.raises(ValueError, match=f"face_vertices: {message}"):
    soft_silhouette(faces, image_size=4)


def test_a_background_of_another_length_is_refused():
  with pytest.raises(ValueError, match=r"background: found shape \(2,\); expected \(\) or \(3,\)"):
    soft_rasterize(np.ones((1, 3, 3)), np.ones((1, 1, 3)), image_size=4, background=[0.0, 1.0])


def test_numpy_arrays_and_lists_are_taken_as_jax_numpy_takes_them(rng):
  faces, texels = scenes.triangles(rng, 4), scenes.textures(rng, 4, 1, 2)
  options = dict(image_size=8, sigma=1e-3, background=(0.25, 0.5))
  expected = rasterize(*scenes.jax_arrays(faces, texels), **options)
  alpha = soft_silhouette(jnp.asarray(faces), image_size=8, sigma=1e-3)
  kinds = {
    "numpy": lambda x: x,
    "float64": lambda x: x.astype(np.float64),
    "lists": lambda x: x.tolist(),
  }
  for of_kind in kinds.values():
    found = rasterize(of_kind(faces), of_kind(texels), **options)
    for value, want in zip(found, expected, strict=True):
      np.testing.assert_array_equal(value, want)
    image = soft_rasterize(of_kind(faces), of_kind(texels), **options)
    np.testing.assert_array_equal(image, expected.rgba)
    found = soft_silhouette(of_kind(faces), image_size=8, sigma=np.float32(1e-3))
    np.testing.assert_array_equal(found, alpha)


def test_a_mesh_may_be_lists_and_its_wrong_shapes_are_named():
  vertices = [[-0.5, -0.5, 0.0], [0.5, -0.5, 0.0], [0.0, 0.5, 0.0]]
  mesh = dict(vertices=vertices, faces=[[0, 1, 2]], camera=[1.0, 0, 0, 1, 0, 0, 0])
  options = dict(image_size=8, vertex_colors=[[1.0]] * 3)
  arrays = {k: np.asarray(v, np.int32 if k == "faces" else np.float32) for k, v in mesh.items()}
  image = render_mesh(**mesh, **options)
  np.testing.assert_array_equal(image, render_mesh(**arrays, **options))
  assert image[4, 4, 1] > 0.9
  for name, wrong, message in (
    ("camera", np.ones(6), r"camera: found shape \(6,\); expected \(7\)"),
    ("faces", [[0, 1]], r"faces: found shape \(1, 2\); expected \(F, 3\)"),
    ("faces", [[0.0, 1.0, 2.0]], "faces: found float32; expected whole numbers"),
    ("vertex_colors", [[1.0]], r"vertex_colors: found shape \(1, 1\); expected \(3, C\)"),
  ):
    with pytest.raises(ValueError, match=message):
      render_mesh(**{**mesh, **options, name: wrong})
