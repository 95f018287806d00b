"""The comparison with float64: its crops are the whole image, the rasterizer is near it."""

import numpy as np
import pytest

from experiments.studies import render_accuracy, render_benchmark
from umr_jax.render import reference


def test_crops_are_the_whole_image_and_gradient(rng):
  corners, textures = render_benchmark.scene(80, 1)[0].astype(float), rng.random((80, 4, 3))
  cotangent = rng.standard_normal((66, 66, 4))
  found = render_accuracy._in_crops(
    corners, textures, cotangent, 66, 1e-4
  )  # nine crops of 22 pixels
  options = reference.Options((66, 66), sigma=float(np.float32(1e-4)))
  image = reference.render(corners, textures, options).rgba
  on_corners, on_textures = reference.gradients(corners, textures, cotangent, options)
  np.testing.assert_allclose(found[0], image, atol=1e-9)
  np.testing.assert_allclose(found[1], on_corners, atol=1e-6 * np.abs(on_corners).max())
  np.testing.assert_allclose(found[2], on_textures, atol=1e-9)


@pytest.mark.parametrize("sigma", [1e-5, 1e-4])
def test_the_rasterizer_is_as_exact_as_its_page_says(rng, sigma):
  corners, textures = render_benchmark.scene(320, 1)[0], rng.random((320, 36, 3))
  found = render_accuracy.errors(corners, textures, image_size=64, sigma=sigma)
  assert found["alpha_max_error"] < 2e-5 and found["color_max_error"] < 3e-4
  assert found["silhouette_gradient_error"] < 2e-5 and found["texture_gradient_error"] < 3e-4
  assert found["rgb_gradient_error"] < 3e-4


def test_errors_are_seen(rng, monkeypatch):
  corners, textures = render_benchmark.scene(20, 1)[0], rng.random((20, 1, 2))
  honest = render_accuracy.errors(corners, textures, image_size=16, sigma=1e-3)
  wrong = render_accuracy.soft_rasterize
  monkeypatch.setattr(
    render_accuracy, "soft_rasterize", lambda c, t, **options: wrong(c, 0.9 * t, **options)
  )
  found = render_accuracy.errors(corners, textures, image_size=16, sigma=1e-3)
  assert found["color_max_error"] > 0.05 > honest["color_max_error"]
  assert found["texture_gradient_error"] == pytest.approx(0.1, abs=0.01)
