"""The formulae of one (pixel, face) pair, against samples of the outline and counted cells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.render import render_scenes as scenes
from umr_jax.render import distance
from umr_jax.render.aggregate import texel_index
from umr_jax.render.binning import face_numbers
from umr_jax.render.rows import rows_from


def rows_of(faces, pixels):
  """One row per face; the tile is a single pixel."""
  x, y, z = (tuple(jnp.asarray(faces[:, i, axis]) for i in range(3)) for axis in range(3))
  index = jnp.arange(len(faces))
  return rows_from(
    index,
    jnp.zeros_like(index),
    jnp.stack(face_numbers(x, y, z), axis=-1)[:, None],
    jnp.asarray(pixels[:, 0:1]),
    jnp.asarray(pixels[:, 1:2]),
    jnp.ones((len(faces), 1), bool),
  )


def clip(weights):
  """Clipped and normalised weights."""
  clipped, total = distance.clipped(weights)
  return tuple(value / total for value in clipped)


ZERO = np.zeros((1, 1), np.float32)


@pytest.fixture
def pairs(rng):
  faces = scenes.triangles(rng, 200)
  pixels = rng.uniform(-1.0, 1.0, (200, 2)).astype(np.float32)
  return faces, pixels, rows_of(faces, pixels)


def test_nearest_point_is_the_nearest_of_many_on_the_outline(pairs):
  faces, pixels, rows = pairs
  edges = distance.edges_of(rows)
  found = distance.locate_nearest(rows, edges, ZERO, ZERO)
  along = np.linspace(0.0, 1.0, 2001)[:, None]
  for f in range(len(faces)):
    a, b = faces[f, :, None, :2], np.roll(faces[f], -1, axis=0)[:, None, :2]
    outline = ((1.0 - along) * a + along * b).reshape(-1, 2)
    expected = np.linalg.norm(outline - pixels[f], axis=-1).min()
    np.testing.assert_allclose(np.sqrt(found.squared[f, 0]), expected, atol=1e-3)
  closest = distance.closest_point(rows, ZERO, ZERO, found.place)
  xy = np.concatenate([closest.x, closest.y], axis=-1)
  np.testing.assert_allclose((xy**2).sum(axis=-1), found.squared[:, 0], rtol=1e-4, atol=1e-7)
  weights = np.concatenate(closest.weights, axis=-1)
  np.testing.assert_allclose(
    pixels + xy, np.einsum("nk,nkc->nc", weights, faces[..., :2]), atol=1e-6
  )


def test_barycentric_weights_give_the_pixel_back(pairs):
  faces, pixels, rows = pairs
  edges = distance.edges_of(rows)
  height = distance.edge_distances(rows, edges, ZERO, ZERO)
  weights = np.concatenate(distance.barycentric(height, rows), axis=-1)
  large = np.abs(np.asarray(rows.inverse_determinant[:, 0])) < 50.0
  np.testing.assert_allclose(weights.sum(axis=-1)[large], 1.0, atol=1e-4)
  back = np.einsum("nk,nkc->nc", weights, faces[..., :2])
  np.testing.assert_allclose(back[large], pixels[large], atol=1e-4)
  inside = distance.strictly_inside(height, edges)[:, 0]
  np.testing.assert_array_equal(inside, (weights > 0.0).all(axis=-1))


def test_clipped_weights_lie_within_the_face_and_sum_to_one(pairs):
  _, _, rows = pairs
  edges = distance.edges_of(rows)
  raw = distance.barycentric(distance.edge_distances(rows, edges, ZERO, ZERO), rows)
  weights = np.concatenate(clip(raw), axis=-1)
  assert (weights > 0.0).all()
  assert (weights < 1.0).all()
  np.testing.assert_allclose(weights.sum(axis=-1), 1.0, rtol=1e-6)


def test_depth_is_interpolated_perspectively(pairs):
  faces, _, rows = pairs
  weights = tuple(jnp.full((200, 1), w) for w in (0.2, 0.3, 0.5))
  expected = (np.array([0.2, 0.3, 0.5]) / faces[..., 2]).sum(axis=-1)
  depth = distance.depth_at(tuple(3.0 * w for w in weights), 3.0, rows)[:, 0]
  np.testing.assert_allclose(depth, 1.0 / expected, rtol=1e-6)


@pytest.mark.parametrize("side", [1, 2, 3, 6])
def test_texels_are_read_where_texels_belong(side):
  """Texel v R + u is the lower triangle of cell (u, v), or the upper one of the mirrored cell."""
  seen = set()
  for v in range(side):
    for u in range(side - v):
      low = np.array([u + 1 / 3, v + 1 / 3]) / side
      cells = [(low, v * side + u)]
      if u + v < side - 1:
        high = np.array([u + 2 / 3, v + 2 / 3]) / side
        cells.append((high, (side - 1 - v) * side + (side - 1 - u)))
      for (first, second), expected in cells:
        weights = tuple(jnp.full((1, 1), w) for w in (first, second, 1.0 - first - second))
        assert int(texel_index(weights, side)[0, 0]) == expected
        seen.add(expected)
  assert seen == set(range(side * side))


def test_corners_of_a_face_read_texels_of_that_face():
  for corner in np.eye(3):
    weights = clip(tuple(jnp.full((1, 1), w) for w in corner))
    assert 0 <= int(texel_index(weights, 6)[0, 0]) < 36


@pytest.mark.parametrize("side", [2896, 2897, 4000])
def test_texels_of_the_largest_faces_have_their_numbers(side):
  """Up to 2 ** 23 texels a number is read off the bits of a float, and beyond it is converted."""
  u, v = np.array([[0, 7, side // 2, side - 1]]), np.array([[side - 1, 1000, side // 3, 0]])
  first, second = (u + 1 / 3) / side, (v + 1 / 3) / side
  weights = tuple(jnp.asarray(w, jnp.float32) for w in (first, second, 1.0 - first - second))
  found = jax.jit(texel_index, static_argnums=1)(weights, side)
  np.testing.assert_array_equal(found, v * side + u)
