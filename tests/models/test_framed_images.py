"""Frames around silhouettes, and the few channels that features keep."""

import jax.numpy as jnp
import numpy as np

from umr_jax.models.framed_images import (
  COMPONENTS,
  fit_projection,
  frame_images,
  project_features,
  silhouette_aspects,
)


def rectangle(left, right, top, bottom, size=64):
  mask = np.zeros((1, size, size), np.float32)
  mask[:, top:bottom, left:right] = 1.0
  return mask


def test_a_frame_does_not_depend_on_where_the_object_is_nor_on_its_size(rng):
  small, large = rectangle(8, 20, 10, 16), rectangle(20, 56, 30, 48)
  maps = jnp.ones((1, 16, 16, 2))
  first, second = (frame_images(maps, jnp.asarray(mask), size=24) for mask in (small, large))
  np.testing.assert_allclose(first.values[..., -1], second.values[..., -1], atol=0.35)
  assert np.abs(np.asarray(first.values - second.values)).mean() < 0.02
  np.testing.assert_allclose(second.sides / first.sides, 3.0, rtol=1e-5)
  np.testing.assert_allclose(first.centers, [[-1.0 + 28 / 64, -1.0 + 26 / 64]], atol=1e-6)


def test_features_are_those_of_the_object_alone(rng):
  mask = jnp.asarray(rectangle(16, 48, 24, 40))
  maps = jnp.asarray(rng.normal(size=(1, 64, 64, 3)), jnp.float32)
  values = np.asarray(frame_images(maps, mask, size=24).values)
  assert not values[values[..., -1] == 0.0].any()
  assert np.abs(values[values[..., -1] == 1.0]).max() > 0.5


def test_aspects_are_height_by_width_and_empty_silhouettes_have_none():
  masks = np.concatenate(
    [rectangle(8, 56, 24, 40), rectangle(24, 40, 8, 56), np.zeros((1, 64, 64))]
  )
  images = frame_images(jnp.zeros((3, 8, 8, 1)), jnp.asarray(masks, jnp.float32), size=48)
  np.testing.assert_allclose(silhouette_aspects(images), [1 / 3, 3.0], rtol=0.15)


def test_components_are_whitened_and_have_expected_square_norm_one_on_the_objects(rng):
  spread = np.geomspace(10.0, 1.0, 40)
  features = (rng.normal(size=(30, 8, 8, 40)) * spread).astype(np.float32)
  masks = np.zeros((30, 32, 32), np.float32)
  masks[:, 8:24, 4:28] = 1.0
  projected = project_features(fit_projection(features, masks), jnp.asarray(features))
  # No more than there are channels.
  assert projected.shape[-1] == 40 < COMPONENTS
  inside = np.asarray(projected)[:, 2:6, 1:7].reshape(-1, 40)
  np.testing.assert_allclose((inside**2).sum(axis=-1).mean(), 1.0, atol=0.05)
  np.testing.assert_allclose(np.cov(inside.T) * 40, np.eye(40), atol=0.1)
