"""Rows of (face, tile): every tile that a face can touch, once, whatever the chunk."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.render import render_scenes as scenes
from tests.render.render_scenes import compiled, in_support
from umr_jax.render.binning import (
  TALL,
  WIDE,
  Grid,
  bin_faces,
  pixel_offsets,
  tile_image,
  tiles_at,
  untile_image,
)
from umr_jax.render.pairs import Settings, rows_in_support
from umr_jax.render.rows import over_kept_rows, over_rows

GRID = Grid(height=21, width=34)


def visits(faces, radius, *, chunk, grid=GRID, keep=None):
  """How often each face [B, F] visits each tile [B, F, B, tiles], and how often none [B, F]."""
  batch, count = faces.shape[:2]
  tiles = batch * grid.tiles

  def run(f):
    bins = bin_faces(f, jnp.float32(radius), grid)

    def body(rows, seen):
      # The last face stands for rows that are not used.
      return seen.at[rows.face, jnp.minimum(rows.tile, tiles)].add(1)

    seen = jnp.zeros((batch * count + 1, tiles + 1), jnp.int32)
    if keep is None:
      return over_rows(bins, grid, chunk, body, seen)
    return over_kept_rows(bins, grid, chunk, keep, body, seen)

  seen = np.asarray(compiled(run)(jnp.asarray(faces)))[:-1]
  none = seen[:, -1].reshape(batch, count)
  return seen[:, :-1].reshape(batch, count, batch, grid.tiles), none


def expected_visits(faces, radius, grid=GRID):
  """The tiles that hold a pixel centre in a face's grown bounding box, by looking at each."""
  x = (2 * np.arange(grid.width) + 1 - grid.width) / grid.width
  y = (2 * np.arange(grid.height) + 1 - grid.height) / grid.height
  touched = np.zeros((*faces.shape[:2], grid.tile_rows, grid.tile_columns), bool)
  for index in np.ndindex(*faces.shape[:2]):
    low, high = faces[index][:, :2].min(axis=0) - radius, faces[index][:, :2].max(axis=0) + radius
    columns = np.unique(np.nonzero((x >= low[0]) & (x <= high[0]))[0] // WIDE)
    rows = np.unique(np.nonzero((y >= low[1]) & (y <= high[1]))[0] // TALL)
    touched[index][np.ix_(rows, columns)] = True
  return touched.reshape(*faces.shape[:2], grid.tiles)


@pytest.mark.parametrize("chunk", [4, 64, 4096])
def test_every_touched_tile_is_visited_once(rng, chunk):
  faces = scenes.triangles(rng, 2, 12, size=0.4)
  faces[0, 3, :, :2] *= 9.0  # many chunks wide
  faces[1, 5, :, :2] += 7.0  # off the image
  seen, none = visits(faces, 0.05, chunk=chunk)
  touched = expected_visits(faces, 0.05)
  for b in range(2):
    np.testing.assert_array_equal(seen[b, :, b], touched[b])
    np.testing.assert_array_equal(seen[b, :, 1 - b], 0)
  np.testing.assert_array_equal(none, ~touched.any(axis=-1))


@pytest.mark.parametrize("chunk", [4, 64, 4096])
@pytest.mark.parametrize("modulus", [1, 2, 7, 10**6])
def test_the_rows_that_are_wanted_are_visited_once_and_no_others(rng, chunk, modulus):
  faces = scenes.triangles(rng, 2, 12, size=0.4)
  faces[0, 3, :, :2] *= 9.0
  seen, _ = visits(faces, 0.05, chunk=chunk)
  kept, _ = visits(
    faces, 0.05, chunk=chunk, keep=lambda rows: (rows.tile + rows.face) % modulus == 0
  )
  face = np.arange(24).reshape(2, 12, 1, 1)
  tile = np.arange(seen.shape[2] * seen.shape[3]).reshape(1, 1, *seen.shape[2:])
  np.testing.assert_array_equal(kept, seen * ((tile + face) % modulus == 0))


def test_tiles_that_a_triangle_does_not_reach_are_known(rng):
  """All tiles that hold a pixel near a face are kept, and most of the others are not."""
  faces = scenes.triangles(rng, 1, 40, size=0.8)
  radius = 0.02
  settings = Settings(GRID)
  kept = visits(faces, radius, chunk=64, keep=rows_in_support(settings, jnp.float32(radius)))[0][
    0, :, 0
  ]
  x = (2 * np.arange(GRID.width) + 1 - GRID.width) / GRID.width
  y = (2 * np.arange(GRID.height) + 1 - GRID.height) / GRID.height
  points = np.stack(np.meshgrid(x, y), axis=-1)
  needed = np.zeros(kept.shape, bool)
  for f, corners in enumerate(faces[0, :, :, :2].astype(np.float64)):
    for row, column in zip(*np.nonzero(in_support(corners, points, radius)), strict=True):
      needed[f, row // TALL * GRID.tile_columns + column // WIDE] = True
  assert (kept[needed] == 1).all()
  boxes = expected_visits(faces, radius)[0]
  assert kept[~needed].sum() < 0.35 * (boxes & ~needed).sum()


def test_faces_that_may_not_be_drawn_touch_nothing():
  faces = scenes.broken_faces()[None]
  seen, none = visits(faces, 0.1, chunk=8)
  np.testing.assert_array_equal(seen, 0)
  np.testing.assert_array_equal(none, 1)


def test_rows_know_where_their_tile_and_their_corners_are(rng):
  faces = scenes.triangles(rng, 1, 6)

  def run(f):
    bins = bin_faces(f, jnp.float32(0.1), GRID)

    def body(rows, _):
      return tuple(x[:, 0] for x in (rows.left, rows.top, *rows.x, *rows.y)), rows.face, rows.tile

    return over_rows(bins, GRID, 1024, body, body_shapes())

  def body_shapes():
    zeros = jnp.zeros(1024)
    return (zeros,) * 8, jnp.zeros(1024, jnp.int32), jnp.zeros(1024, jnp.int32)

  (left, top, *offsets), face, tile = compiled(run)(jnp.asarray(faces))
  used = np.asarray(face) < 6
  face, tile = np.asarray(face)[used], np.asarray(tile)[used]
  column, row = tile % GRID.tile_columns, tile // GRID.tile_columns
  x = (2 * WIDE * column + 1 - GRID.width) / GRID.width
  y = (2 * TALL * row + 1 - GRID.height) / GRID.height
  np.testing.assert_allclose(np.asarray(left)[used], x, atol=1e-6)
  np.testing.assert_allclose(np.asarray(top)[used], y, atol=1e-6)
  for i in range(3):
    np.testing.assert_allclose(np.asarray(offsets[i])[used], x - faces[0, face, i, 0], atol=1e-6)
    np.testing.assert_allclose(
      np.asarray(offsets[3 + i])[used], y - faces[0, face, i, 1], atol=1e-6
    )


def test_tiles_give_the_image_back_and_are_zero_beyond_it(rng):
  image = rng.uniform(1.0, 2.0, (3, GRID.height, GRID.width, 2)).astype(np.float32)
  tiles = tile_image(jnp.asarray(image), GRID)
  assert tiles.shape == (3 * GRID.tiles, TALL * WIDE, 2)
  np.testing.assert_array_equal(untile_image(tiles, GRID), image)
  assert int((np.asarray(tiles) != 0.0).sum()) == image.size


@pytest.mark.parametrize("size", [(8, 12), (9, 14)])
def test_single_tiles_are_those_of_the_tiled_image(rng, size):
  grid = Grid(*size)
  image = jnp.asarray(rng.random((3, *size, 2)), jnp.float32)
  tile = jnp.asarray(rng.integers(0, 3 * grid.tiles, 20), jnp.int32)
  np.testing.assert_array_equal(tiles_at(image, grid, tile), tile_image(image, grid)[tile])


def test_pixel_offsets_follow_the_order_of_a_tile(rng):
  # An image of x and y is a tile's first pixel plus the offsets.
  x = np.broadcast_to((2 * np.arange(GRID.width) + 1 - GRID.width) / GRID.width, GRID)
  tiles = np.asarray(tile_image(jnp.asarray(x[None], jnp.float32), GRID))
  dx, _ = pixel_offsets(GRID)
  np.testing.assert_allclose(tiles[1], tiles[1, :1] + dx[0], atol=1e-6)
