"""move_inside: what looks beside the object looks at its nearest pixel, and nothing else moves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.models.clamped_flow import move_inside

SIZE = 16


def centers():
  along = (2.0 * np.arange(SIZE) + 1.0) / SIZE - 1.0
  return np.stack(np.meshgrid(along, along), axis=-1).astype(np.float32)


def disc(x, y, radius):
  away = np.linalg.norm(centers() - np.array([x, y]), axis=-1)
  return (away < radius).astype(np.float32)


def moved(flow, mask):
  return np.asarray(jax.jit(move_inside)(jnp.asarray(flow), jnp.asarray(mask)))


def test_places_move_to_the_nearest_covered_pixel():
  mask = np.stack([disc(0.3, -0.2, 0.4), disc(-0.5, 0.5, 0.3)])
  after = moved(np.broadcast_to(centers(), (2, SIZE, SIZE, 2)), mask)
  for covered, places in zip(mask > 0.5, after, strict=True):
    inside = centers()[covered]
    away = np.linalg.norm(centers()[:, :, None] - inside, axis=-1).min(axis=-1)
    np.testing.assert_allclose(np.linalg.norm(places - centers(), axis=-1), away, atol=1e-6)
    np.testing.assert_allclose(
      np.linalg.norm(places[:, :, None] - inside, axis=-1).min(axis=-1), 0.0, atol=1e-6
    )


def test_between_covered_pixels_nothing_moves():
  mask = disc(0.0, 0.0, 0.6)[None]
  inside = np.random.default_rng(0).uniform(-0.3, 0.3, (1, 4, 8, 2)).astype(np.float32)
  np.testing.assert_array_equal(moved(inside, mask), inside)


def test_beyond_the_outermost_pixels_a_place_moves_with_them():
  mask = disc(0.0, 0.0, 0.3)[None]
  edge = np.array([[[[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.9, 0.9]]]], np.float32)
  after = moved(edge, mask)
  assert (np.linalg.norm(after, axis=-1) < 0.4).all()


def test_the_flow_is_continuous():
  mask = disc(0.1, 0.0, 0.5)[None]
  x = np.linspace(-1.0, 1.0, 2001, dtype=np.float32)
  line = np.stack([x, np.full_like(x, 0.03)], axis=-1)[None, None]
  steps = np.linalg.norm(np.diff(moved(line, mask)[0, 0], axis=0), axis=-1)
  assert steps.max() < 0.02


@pytest.mark.parametrize("level", [0.0, 0.49])
def test_an_image_without_a_covered_pixel_is_left_alone(level):
  mask = np.stack([np.full((SIZE, SIZE), level, np.float32), disc(0.0, 0.0, 0.3)])
  flow = np.full((2, 2, 4, 2), 0.8, np.float32)
  after = moved(flow, mask)
  np.testing.assert_array_equal(after[0], flow[0])
  assert np.abs(after[1] - flow[1]).min() > 0.1
