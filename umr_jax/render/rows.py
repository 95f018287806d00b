"""Rows of (face, tile), visited in chunks: all of them, or selected ones.

The rows are never listed. A `while_loop` with a dynamic trip count visits them, so that shapes are
static, work follows the real number of rows, no capacity can overflow and no face is ever dropped.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from umr_jax.render.binning import TALL, WIDE, Bins, Grid, pixel_offsets

# The tile of rows that have none.
_NO_TILE = np.int32(1 << 30)
# Rows of which `keep` selects at a time.
_SEARCH_CHUNK = 16384

State = TypeVar("State")
Triple = tuple[Array, ...]  # one of each corner or edge


class Rows(NamedTuple):
  """A chunk of rows. Columns [R, 1] and pixels [1, 16] broadcast to [R, 16]."""

  face: Int[Array, "R"]  # index into all N faces; N for a row that is not used
  tile: Int[Array, "R"]  # index into all tiles; beyond them for a face that touches nothing
  x: tuple[Float[Array, "R 1"], ...]  # from each vertex to the tile's first pixel centre
  y: tuple[Float[Array, "R 1"], ...]
  left: Float[Array, "R 1"]  # image-space position of the tile's first pixel centre
  top: Float[Array, "R 1"]
  # Of the edges, edge i from corner i to corner i + 1: unit vectors and lengths. An edge of no
  # length has the vector (1, 0) and length 0.
  along_x: tuple[Float[Array, "R 1"], ...]
  along_y: tuple[Float[Array, "R 1"], ...]
  length: tuple[Float[Array, "R 1"], ...]
  # One over twice the signed area: positive for corners that run clockwise on the screen.
  inverse_determinant: Float[Array, "R 1"]
  inverse_depth: tuple[Float[Array, "R 1"], ...]
  active: Bool[Array, "R 1"]  # False for rows on no tile


class _Cursor(NamedTuple):
  """How far the rows have been visited."""

  face: Int[Array, ""]  # the first face that is not finished
  row: Int[Array, ""]  # the number of the next row


class _Kept(NamedTuple):
  """Selected rows, until they fill a chunk."""

  pending: Int[Array, ""]
  rows: Int[Array, "R2 2"]  # face and number


def over_rows(
  bins: Bins,
  grid: Grid,
  chunk: int,
  body: Callable[[Rows, State], State],
  state: State,
) -> State:
  """Runs `body` over all rows of all faces, `chunk` rows at a time, in the order of the faces.

  Args:
    bins: the faces.
    grid: size of the raster.
    chunk: rows per step.
    body: takes a chunk of rows and the state, returns the new state.
    state: a pytree of arrays of fixed shapes.
  """
  chunk = _safe_chunk(chunk, grid)
  starts = _padded_starts(bins, chunk)

  def step(carry: tuple[_Cursor, State]) -> tuple[_Cursor, State]:
    cursor, state = carry
    face, number, cursor = _next_rows(starts, bins.num_faces, cursor, chunk)
    return cursor, body(_locate(bins, grid, face, number), state)

  carry = (_start(), state)
  return lax.while_loop(lambda carry: carry[0].face < bins.num_faces, step, carry)[1]


def over_kept_rows(
  bins: Bins,
  grid: Grid,
  chunk: int,
  keep: Callable[[Rows], Bool[Array, "R"]],
  body: Callable[[Rows, State], State],
  state: State,
) -> State:
  """`over_rows` for the rows that `keep` selects: they are gathered until they fill a chunk.

  Faster where `body` costs several times what `keep` does.

  Args:
    bins: the faces.
    grid: size of the raster.
    chunk: kept rows per step.
    keep: selects rows, of several chunks at a time.
    body: takes a chunk of kept rows and the state, returns the new state. Rows that fill up the
      last chunk are of the face that stands for unused rows.
    state: a pytree of arrays of fixed shapes.
  """
  search_chunk = _safe_chunk(default_chunk(bins.num_faces, _SEARCH_CHUNK), grid)
  starts = _padded_starts(bins, search_chunk)
  total = bins.num_faces
  room = chunk + search_chunk  # fewer than a chunk are pending when `keep` selects further ones

  def search(carry: tuple[_Cursor, _Kept]) -> tuple[_Cursor, _Kept]:
    cursor, kept = carry
    face, number, cursor = _next_rows(starts, total, cursor, search_chunk)
    selected = keep(_locate(bins, grid, face, number)) & (face < total)
    counted = _running_count(selected)
    place = jnp.where(selected, kept.pending + counted - 1, room)
    kept = _Kept(
      kept.pending + counted[-1],
      kept.rows.at[place].set(jnp.stack([face, number], axis=-1), mode="drop"),
    )
    return cursor, kept

  def unfilled(carry: tuple[_Cursor, _Kept]) -> Array:
    return (carry[0].face < total) & (carry[1].pending < chunk)

  def step(carry: tuple[_Cursor, _Kept, State]) -> tuple[_Cursor, _Kept, State]:
    cursor, kept, state = carry
    cursor, kept = lax.while_loop(unfilled, search, (cursor, kept))
    used = np.arange(chunk, dtype=np.int32) < kept.pending
    face = jnp.where(used, kept.rows[:chunk, 0], total)
    state = body(_locate(bins, grid, face, kept.rows[:chunk, 1]), state)
    rest = jnp.roll(kept.rows, -chunk, axis=0)
    return cursor, _Kept(jnp.maximum(kept.pending - chunk, 0), rest), state

  def unfinished(carry: tuple[_Cursor, _Kept, State]) -> Array:
    return (carry[0].face < total) | (carry[1].pending > 0)

  empty = _Kept(jnp.zeros((), jnp.int32), jnp.zeros((room, 2), jnp.int32))
  carry = (_start(), empty, state)
  return lax.while_loop(unfinished, step, carry)[2]


def _safe_chunk(chunk: int, grid: Grid) -> int:
  """A chunk so small that as many faces that cover the image differ by less than 2 ** 31 rows."""
  return min(chunk, 1 << max(0, 30 - grid.tiles.bit_length()))


def _start() -> _Cursor:
  zero = jnp.zeros((), jnp.int32)
  return _Cursor(zero, zero)


def _padded_starts(bins: Bins, chunk: int) -> Int[Array, "N1+chunk"]:
  """The first rows of all faces, and of `chunk` that are none: they start after the last row."""
  return jnp.concatenate([bins.starts, jnp.broadcast_to(bins.starts[-1:], (chunk,))])


def _next_rows(
  starts: Int[Array, "N1+chunk"], total: int, cursor: _Cursor, chunk: int
) -> tuple[Int[Array, "R"], Int[Array, "R"], _Cursor]:
  """The next `chunk` rows: the face of each, `total` after the last, and their numbers.

  As every face has a row, these are rows of the next `chunk` faces at most.
  """
  index = np.arange(chunk, dtype=np.int32)
  begins = lax.dynamic_slice(starts, (cursor.face,), (chunk,)) - cursor.row
  # The first face may have begun before; faces of later chunks are dropped.
  marks = jnp.zeros(chunk, jnp.bool_).at[jnp.maximum(begins, 0)].set(True, mode="drop")
  face = cursor.face + _running_count(marks) - 1
  last, row = face[-1], cursor.row + chunk
  ends_here = starts[jnp.minimum(last + 1, total)] == row
  following = jnp.where(ends_here, jnp.minimum(last + 1, total), last)
  return face, cursor.row + index, _Cursor(following, row)


def _running_count(marks: Bool[Array, "R"]) -> Int[Array, "R"]:
  """How many are true up to each place, itself included.

  As two small matrix products, exact in any precision since no entry exceeds 64: a cumulative sum
  costs a CPU three times as much.
  """
  size = marks.shape[0]
  side = 64
  if size % side:
    return jnp.cumsum(marks, dtype=jnp.int32)
  blocks = marks.reshape(-1, side).astype(jnp.float32)
  within = blocks @ np.triu(np.ones((side, side), np.float32))
  count = size // side
  before = within[:, -1] @ np.triu(np.ones((count, count), np.float32), 1)
  return (within + before[:, None]).astype(jnp.int32).reshape(size)


def _locate(bins: Bins, grid: Grid, face: Int[Array, "R"], number: Int[Array, "R"]) -> Rows:
  """The tiles of rows of these numbers, and their faces' corners relative to them."""
  floats = bins.shapes.at[face].get(mode="promise_in_bounds")
  place = bins.places.at[face].get(mode="promise_in_bounds")
  image, first_column, first_row, width, start = (place[:, i] for i in range(5))
  nth = jnp.where(face < bins.num_faces, number - start, 0)
  # An integer division by way of floats, which vectorises; exact below 2 ** 22 tiles.
  down = jnp.floor((nth.astype(jnp.float32) + 0.5) / width.astype(jnp.float32)).astype(jnp.int32)
  column = first_column + nth - down * width
  row = first_row + down
  tile = jnp.where(row < grid.tile_rows, image + row * grid.tile_columns + column, _NO_TILE)
  left = (2 * WIDE * column + (1 - grid.width)).astype(jnp.float32) / grid.width
  top = (2 * TALL * row + (1 - grid.height)).astype(jnp.float32) / grid.height
  active = (row < grid.tile_rows)[:, None]
  return rows_from(face, tile, floats[:, None], left[:, None], top[:, None], active)


def rows_from(
  face: Array, tile: Array, floats: Array, left: Array, top: Array, active: Array
) -> Rows:
  """Rows from the faces' records [..., floats] and the positions to which they are relative.

  Args:
    face: numbers of faces, through the whole batch.
    tile: numbers of tiles, through all images.
    floats: the faces' records.
    left: x of each row's first pixel centre.
    top: y of each row's first pixel centre.
    active: whether the row is on a tile.
  """
  numbers = [floats[..., i] for i in range(floats.shape[-1])]
  return Rows(
    face=face,
    tile=tile,
    x=tuple(left - corner for corner in numbers[0:6:2]),
    y=tuple(top - corner for corner in numbers[1:6:2]),
    left=left,
    top=top,
    along_x=tuple(numbers[6:12:2]),
    along_y=tuple(numbers[7:12:2]),
    length=tuple(numbers[12:15]),
    inverse_determinant=numbers[15],
    inverse_depth=tuple(numbers[16:19]),
    active=active,
  )


def rows_at_pixels(bins: Bins, grid: Grid, face: Int[Array, "tiles 16"]) -> Rows:
  """One given face at each pixel, as rows whose columns are [tiles, 16]; see `Rows`.

  Where `face` is negative the result is that of the face which fills up the last chunk.

  Args:
    bins: the faces of the batch.
    grid: size of the raster.
    face: numbers of faces, through the whole batch.
  """
  record = jnp.where(face < 0, bins.num_faces, face)
  floats = bins.shapes.at[record].get(mode="promise_in_bounds")
  index = np.arange(face.shape[0], dtype=np.int32) % grid.tiles
  dx, dy = pixel_offsets(grid)
  column, row = index % grid.tile_columns, index // grid.tile_columns
  left = ((2 * WIDE * column + 1 - grid.width).astype(np.float32) / grid.width)[:, None] + dx
  top = ((2 * TALL * row + 1 - grid.height).astype(np.float32) / grid.height)[:, None] + dy
  left, top = left.astype(np.float32), top.astype(np.float32)
  tile = jnp.arange(face.shape[0], dtype=jnp.int32)
  return rows_from(face, tile, floats, jnp.asarray(left), jnp.asarray(top), face >= 0)


def default_chunk(num_faces: int, largest: int) -> int:
  """Rows per step: no more than a small scene has use for.

  Args:
    num_faces: how many, of all images.
    largest: the most rows.
  """
  return int(min(largest, max(256, 1 << (4 * num_faces - 1).bit_length())))
