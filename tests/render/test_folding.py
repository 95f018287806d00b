"""jax.vmap over the rasterizer: the same images and gradients, as one larger batch."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.render import render_scenes as scenes
from tests.render.render_scenes import compiled
from umr_jax.render import soft_rasterize, soft_silhouette
from umr_jax.render.folding import foldable


def test_a_mapped_image_and_gradient_are_those_of_the_batch(rng):
  faces, texels = scenes.jax_arrays(
    scenes.triangles(rng, 2, 3, 6), scenes.textures(rng, 2, 3, 6, 4, 2)
  )

  def loss(f, t):
    return jnp.sum(jnp.square(soft_rasterize(f, t, image_size=9, sigma=1e-3, gamma=1e-2)))

  def mapped(f, t):
    return jnp.sum(jax.vmap(loss)(f, t))

  expected = compiled(jax.grad(loss, (0, 1)))(faces, texels)
  for function in (jax.grad(mapped, (0, 1)), jax.vmap(jax.grad(loss, (0, 1)))):
    for found, want in zip(compiled(function)(faces, texels), expected, strict=True):
      np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)


def test_mapping_over_sigma_draws_each_softness(rng):
  faces = jnp.asarray(scenes.triangles(rng, 2, 6))
  sigmas = jnp.array([1e-3, 1e-4])

  def total(f, s):
    return jnp.sum(soft_silhouette(f, image_size=9, sigma=s))

  both = jax.value_and_grad(total, (0, 1))
  values, gradients = compiled(jax.vmap(both, in_axes=(None, 0)))(faces, sigmas)
  one = compiled(both)
  for i in range(2):
    value, gradient = one(faces, sigmas[i])
    np.testing.assert_allclose(values[i], value, rtol=1e-5)
    for found, want in zip(gradients, gradient, strict=True):
      np.testing.assert_allclose(found[i], want, rtol=1e-4, atol=1e-4)


def test_sigma_gets_a_gradient_for_each_mapped_batch(rng):
  faces = jnp.asarray(scenes.triangles(rng, 2, 6))

  def total(f, s):
    return jnp.sum(soft_silhouette(f, image_size=9, sigma=s))

  slope = jax.grad(total, 1)
  found = compiled(jax.vmap(slope, in_axes=(0, None)))(faces, jnp.float32(1e-3))
  one = compiled(slope)
  np.testing.assert_allclose(found, [one(f, jnp.float32(1e-3)) for f in faces], rtol=1e-4)


def test_hard_images_and_backgrounds_map_as_well(rng):
  faces, texels = scenes.jax_arrays(
    scenes.triangles(rng, 2, 3, 6), scenes.textures(rng, 2, 3, 6, 4, 2)
  )

  def loss(f, t, b):
    image = soft_rasterize(f, t, image_size=9, sigma=1e-3, aggr_rgb="hard", background=b)
    return jnp.sum(jnp.square(image))

  background = jnp.array([0.2, 0.9])
  slope = jax.grad(loss, (1, 2))
  found = compiled(jax.vmap(slope, in_axes=(0, 0, None)))(faces, texels, background)
  one = compiled(slope)
  for i in range(2):
    for mapped, want in zip(found, one(faces[i], texels[i], background), strict=True):
      np.testing.assert_allclose(mapped[i], want, rtol=1e-5, atol=1e-5)


def test_a_mapped_batch_is_one_larger_batch():
  shapes = []

  def double(x, scale):
    shapes.append(x.shape)
    return 2.0 * scale * x

  function = foldable(double)
  x = jnp.arange(24.0).reshape(2, 3, 4)
  np.testing.assert_allclose(jax.vmap(function, in_axes=(0, None))(x, jnp.float32(0.5)), x)
  assert shapes[-1] == (6, 4)
