"""RenderSettings: one value that renders what the functions render."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.render import render_scenes as scenes
from umr_jax.render import RenderSettings, rasterize, soft_rasterize


def test_settings_render_what_the_functions_render(rng):
  faces, texels = scenes.jax_arrays(scenes.triangles(rng, 4), scenes.textures(rng, 4, 4, 2))
  options = dict(image_size=(8, 12), sigma=1e-3, gamma=1e-2, antialias=2, background=0.5)
  settings = RenderSettings(**options)
  still = jax.lax.stop_gradient(faces)
  image = soft_rasterize(faces, texels, color_vertices=still, **options)
  np.testing.assert_array_equal(settings.soft_rasterize(faces, texels, color_vertices=still), image)
  for found, want in zip(
    settings.rasterize(faces, texels), rasterize(faces, texels, **options), strict=True
  ):
    np.testing.assert_array_equal(found, want)
  np.testing.assert_array_equal(settings.soft_silhouette(faces), image[..., -1])


def test_settings_are_static_arguments_and_hold_traced_numbers(rng):
  faces = jnp.asarray(scenes.triangles(rng, 4))
  settings = RenderSettings(image_size=8, sigma=1e-3)
  expected = settings.soft_silhouette(faces)
  draw = jax.jit(lambda s, f: s.soft_silhouette(f), static_argnums=0)
  np.testing.assert_allclose(draw(settings, faces), expected, atol=1e-6)

  def of_sigma(sigma):
    return dataclasses.replace(settings, sigma=sigma).soft_silhouette(faces)

  np.testing.assert_allclose(jax.jit(of_sigma)(jnp.float32(1e-3)), expected, atol=1e-6)
  with pytest.raises(ValueError, match="image_size"):
    dataclasses.replace(settings, image_size=0)
