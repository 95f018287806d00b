"""The slow reference, against the golden vectors and against its own differences."""

import numpy as np
import pytest

from tests.render import render_scenes as scenes
from tests.render.render_scenes import relative
from umr_jax.render import reference

CASES = [0, 2, 3, 5, 6, 7]


def reference_case(number):
  options, arrays = scenes.golden_case(number)
  size = options.pop("image_size")
  return reference.Options((size, size), **options), arrays


@pytest.mark.parametrize("number", CASES)
def test_reference_draws_the_golden_images(number):
  options, arrays = reference_case(number)
  for b, expected in enumerate(arrays["rgba"]):
    image = reference.render(arrays["face_vertices"][b], arrays["textures"][b], options)
    np.testing.assert_allclose(image.rgba, expected, atol=1e-6)


@pytest.mark.parametrize("number", [case for case in CASES if case != 2])
def test_reference_has_the_golden_gradients(number):
  options, arrays = reference_case(number)
  for b, expected in enumerate(arrays["grad_face_vertices"]):
    on_faces, on_textures = reference.gradients(
      arrays["face_vertices"][b], arrays["textures"][b], arrays["cotangent"][b], options
    )
    assert relative(on_faces, expected) < 1e-5
    if options.texture_type == "vertex":
      assert relative(on_textures, arrays["grad_textures"][b]) < 1e-5


def test_reference_texture_and_depth_gradients_are_slopes(rng):
  """Golden texel gradients hold junk (test_rasterize), so these are checked by differences."""
  faces = scenes.triangles(rng, 4).astype(np.float64)
  texels = scenes.textures(rng, 4, 4, 2).astype(np.float64)
  cotangent = rng.standard_normal((9, 12, 3))
  options = reference.Options((9, 12), sigma=1e-3, gamma=1e-2)
  on_faces, on_texels = reference.gradients(faces, texels, cotangent, options)

  def objective(faces, texels):
    return (cotangent * reference.render(faces, texels, options).rgba).sum()

  step = 1e-5
  for index in np.ndindex(4, 3):
    move = np.zeros_like(faces)
    move[index][2] = step
    slope = (objective(faces + move, texels) - objective(faces - move, texels)) / (2.0 * step)
    np.testing.assert_allclose(on_faces[index][2], slope, atol=1e-5 * np.abs(on_faces).max())
  for index in np.ndindex(*texels.shape):
    move = np.zeros_like(texels)
    move[index] = step
    slope = (objective(faces, texels + move) - objective(faces, texels - move)) / (2.0 * step)
    np.testing.assert_allclose(on_texels[index], slope, atol=1e-6)
