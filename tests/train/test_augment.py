"""Colour jitter: the same picture in another light, each image under its own draw."""

import jax
import jax.numpy as jnp
import numpy as np

from umr_jax.train.augment import color_jitter


def test_strength_zero_changes_nothing(rng):
  images = jnp.asarray(rng.random((3, 4, 4, 3)), jnp.float32)
  same = color_jitter(images, jnp.arange(3), jax.random.key(0), 0.0)
  np.testing.assert_allclose(same, images, atol=1e-6)


def test_a_draw_belongs_to_the_image_and_the_key(rng):
  images = jnp.asarray(np.repeat(rng.random((1, 4, 4, 3)), 4, axis=0), jnp.float32)
  key = jax.random.key(1)
  drawn = color_jitter(images, jnp.arange(4), key, 0.4)
  picked = color_jitter(images[:2], jnp.array([3, 1]), key, 0.4)
  np.testing.assert_allclose(picked, drawn[jnp.array([3, 1])], atol=1e-6)
  assert len(np.unique(np.asarray(drawn).sum(axis=(1, 2, 3)))) == 4
  assert np.abs(color_jitter(images, jnp.arange(4), jax.random.key(2), 0.4) - drawn).max() > 0.05


def test_values_stay_colours_and_a_grey_picture_keeps_its_layout(rng):
  images = jnp.asarray(rng.random((16, 8, 8, 3)), jnp.float32)
  drawn = np.asarray(color_jitter(images, jnp.arange(16), jax.random.key(0), 2.0))
  assert drawn.min() >= 0.0 and drawn.max() <= 1.0
  flat = jnp.full((4, 8, 8, 3), 0.5, jnp.float32)
  drawn = np.asarray(color_jitter(flat, jnp.arange(4), jax.random.key(0), 0.3))
  # Nothing to see before, nothing afterwards; each channel within exp(+-0.3) of the half.
  assert np.ptp(drawn, axis=(1, 2)).max() < 1e-6
  assert (np.abs(np.log(drawn / 0.5)) <= 0.3 + 1e-5).all()
  assert np.ptp(drawn[:, 0, 0], axis=-1).min() > 1e-3
