"""Warps: their ranges, whose draws they are, and where things go."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.geometry.sampling import affine_sample
from umr_jax.parts.warp import WarpRanges, draw_warps, warp_images, warp_logits, warp_maps

STILL = WarpRanges(rotation=0.0, shift=0.0, smallest=1.0, largest=1.0, mirror=0.0)


def test_nothing_moves_without_a_range(rng):
  images = jnp.asarray(rng.random((2, 8, 8, 3)), jnp.float32)
  matrix = draw_warps(jnp.arange(2), jax.random.key(0), STILL)
  np.testing.assert_allclose(matrix, np.tile(np.eye(2, 3), (2, 1, 1)), atol=1e-6)
  np.testing.assert_allclose(warp_images(images, matrix), images, atol=1e-5)


def test_a_certain_mirror_turns_left_to_right(rng):
  images = jnp.asarray(rng.random((2, 8, 8, 3)), jnp.float32)
  matrix = draw_warps(jnp.arange(2), jax.random.key(0), STILL._replace(mirror=1.0))
  np.testing.assert_allclose(warp_images(images, matrix), images[:, :, ::-1], atol=1e-5)


def test_half_of_the_images_are_mirrored_and_sizes_stay_in_their_range():
  matrix = np.asarray(draw_warps(jnp.arange(2000), jax.random.key(3), WarpRanges()))
  determinant = np.linalg.det(matrix[:, :, :2])
  assert 0.45 < (determinant < 0).mean() < 0.55
  size = 1.0 / np.sqrt(np.abs(determinant))
  assert size.min() > 0.8 - 1e-4 and size.max() < 1.3 + 1e-4
  assert size.min() < 0.81 and size.max() > 1.28
  # The centre of the old image is seen at most a tenth of the size off the new one's.
  back = np.linalg.solve(matrix[:, :, :2], -matrix[:, :, 2:])[..., 0]
  assert 0.19 < np.abs(back).max() <= 0.2 + 1e-4
  turn = np.degrees(np.arctan2(matrix[:, 0, 1], np.abs(matrix[:, 1, 1])))
  assert 28.0 < np.abs(turn).max() <= 30.0 + 1e-3


def test_a_draw_belongs_to_the_image_and_the_key():
  key = jax.random.key(1)
  drawn = draw_warps(jnp.arange(4), key, WarpRanges())
  picked = draw_warps(jnp.array([3, 1]), key, WarpRanges())
  np.testing.assert_allclose(picked, drawn[jnp.array([3, 1])], atol=1e-6)
  assert np.abs(draw_warps(jnp.arange(4), jax.random.key(2), WarpRanges()) - drawn).max() > 0.05


def test_a_blob_goes_where_the_inverse_matrix_sends_it():
  size, spot = 32, np.array([0.25, -0.2])
  center = (2.0 * np.arange(size) + 1.0 - size) / size
  x, y = np.meshgrid(center, center)
  blob = np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / 0.02)
  maps = jnp.asarray(np.tile(blob[None, ..., None], (8, 1, 1, 1)), jnp.float32)
  ranges = WarpRanges(largest=1.3)
  matrix = draw_warps(jnp.arange(8), jax.random.key(5), ranges)
  moved = np.array(warp_maps(maps, matrix))[..., 0]
  moved /= moved.sum((1, 2), keepdims=True)
  found = np.stack([(moved * x).sum((1, 2)), (moved * y).sum((1, 2))], axis=-1)
  away = spot - np.asarray(matrix)[:, :, 2]
  expected = np.linalg.solve(np.asarray(matrix)[:, :, :2], away[..., None])[..., 0]
  np.testing.assert_allclose(found, expected, atol=0.01)


@pytest.mark.parametrize("fill", [0.0, 1.0, -10.0])
def test_sampling_matches_the_loop_and_fills_the_outside(rng, fill):
  image = rng.random((1, 5, 5, 2)).astype(np.float32)
  matrix = np.array([[[0.9, 0.5, 0.3], [-0.4, 1.1, -0.2]]], np.float32)
  center = (2.0 * np.arange(5) + 1.0 - 5) / 5
  padded = np.pad(image[0] - fill, ((9, 9), (9, 9), (0, 0)))
  expected = np.zeros((5, 5, 2))
  for i, j in np.ndindex(5, 5):
    x, y = matrix[0, :, :2] @ np.array([center[j], center[i]]) + matrix[0, :, 2]
    column, row = (x + 1) * 2.5 - 0.5 + 9, (y + 1) * 2.5 - 0.5 + 9
    a, b = int(np.floor(row)), int(np.floor(column))
    for r, c in ((a, b), (a, b + 1), (a + 1, b), (a + 1, b + 1)):
      expected[i, j] += padded[r, c] * (1 - abs(row - r)) * (1 - abs(column - c))
  found = affine_sample(jnp.asarray(image), jnp.asarray(matrix), fill=fill)
  np.testing.assert_allclose(found[0], expected + fill, atol=1e-5)


def test_what_comes_in_is_white_empty_and_background(rng):
  away = jnp.tile(jnp.array([[[1.0, 0.0, 5.0], [0.0, 1.0, 0.0]]]), (2, 1, 1))
  images = jnp.asarray(rng.random((2, 8, 8, 3)), jnp.float32)
  assert (warp_images(images, away) == 1.0).all() and (warp_maps(images, away) == 0.0).all()
  probs = jax.nn.softmax(warp_logits(images, away), axis=-1)
  assert (probs[..., 0] > 0.999).all()


def test_unmoved_logits_say_what_they_said_and_have_gradients(rng):
  logits = jnp.asarray(rng.normal(size=(2, 8, 8, 4)), jnp.float32)
  still = draw_warps(jnp.arange(2), jax.random.key(0), STILL)
  expected = jax.nn.softmax(logits, axis=-1)
  found = jax.nn.softmax(warp_logits(logits, still), axis=-1)
  np.testing.assert_allclose(found, expected, atol=1e-5)
  matrix = draw_warps(jnp.arange(2), jax.random.key(0), WarpRanges())
  grad = jax.grad(lambda x: jnp.sum(jnp.square(warp_logits(x, matrix))))(logits)
  assert np.isfinite(grad).all() and (grad != 0.0).any()
