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


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"dist_func": "barycentic"}, "dist_func must be 'euclidean' or 'barycentric', found 'baryc"),
    ({"aggr_rgb": "hardd"}, "aggr_rgb must be 'softmax' or 'hard', found 'hardd'"),
    ({"aggr_alpha": "summ"}, "aggr_alpha must be 'prod' or 'sum', found 'summ'"),
    ({"texture_type": "vertx"}, "texture_type must be 'surface' or 'vertex', found 'vertx'"),
    ({"image_size": 16.0}, "image_size must be a whole number .* found 16.0"),
    ({"image_size": (16, 8.0)}, "image_size must be a whole number .* found .16, 8.0"),
    ({"image_size": (16, 8, 3)}, "image_size must be a whole number .* found .16, 8, 3"),
    ({"image_size": True}, "image_size must be a whole number .* found True"),
    ({"image_size": (8, -1)}, "image_size must be positive, found -1"),
    ({"antialias": 1.5}, "antialias must be a whole number, found 1.5"),
    ({"antialias": 0}, "antialias must be positive, found 0"),
    ({"sigma": 0.0}, "sigma must be positive and finite, found 0.0"),
    ({"gamma": np.inf}, "gamma must be positive and finite, found inf"),
    ({"dist_eps": 0.5}, "dist_eps must lie in .* found 0.5"),
    ({"near": 2.0, "far": 1.0}, "expected 0 < near < far, found 2.0 and 1.0"),
    ({"eps": -5}, "eps must lie in .0, 1., found -5"),
    ({"eps": 1.0}, "eps must lie in .0, 1., found 1.0"),
  ],
)
def test_options_without_meaning_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    RenderSettings(**{"image_size": 16, **options})


def test_sizes_may_be_numpy_integers():
  assert RenderSettings(image_size=np.int64(16)).height_and_width == (16, 16)
