"""Which faces can touch which pixels: rows of (face, tile), visited in chunks.

An image is cut into tiles of 4 x 4 pixels and kept as an array [tiles, 16]. A face touches the
tiles under its bounding box, grown by the distance at which SoftRas stops looking. Every (face,
tile) pair is one row of work. The rows are never listed: a `while_loop` with a dynamic trip count
visits them in chunks of a fixed size, so that shapes are static, work follows the real number of
rows, no capacity can overflow and no face is ever dropped.

Faces that touch nothing keep one row, whose tile does not exist: writing to it changes nothing.
This bounds the number of faces in a chunk by its number of rows, which is what makes the search
for the faces of a chunk cheap, however large the batch.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

TALL, WIDE = 4, 4  # pixels along a tile's sides
PIXELS = TALL * WIDE

# Vertices are moved into this range before anything is squared, so that nothing overflows.
_FARTHEST = 1e6
_NEAREST_DEPTH, _FARTHEST_DEPTH = 1e-12, 1e15
# An edge that is not longer has no direction. A sliver's determinant is pushed away from zero.
_SHORTEST_EDGE = 1e-10
_SMALLEST_DETERMINANT = 1e-10
# Floats of a face's record before its four integers.
_FLOATS = 19
# The tile of rows that have none.
_NOWHERE = np.int32(1 << 30)
# Rows that are looked at together, to see which are worth more.
_LOOK_CHUNK = 16384

State = TypeVar("State")


class Grid(NamedTuple):
  """The size of the image that is rasterized, in pixels."""

  height: int
  width: int

  @property
  def tile_rows(self) -> int:
    """Rows of tiles that cover the image."""
    return -(-self.height // TALL)

  @property
  def tile_columns(self) -> int:
    """Columns of tiles that cover the image."""
    return -(-self.width // WIDE)

  @property
  def tiles(self) -> int:
    """Tiles of one image."""
    return self.tile_rows * self.tile_columns


class Bins(NamedTuple):
  """Every face of the batch, and the rectangle of tiles that it can touch.

  `table` holds per face what `face_numbers` says (float32 seen as int32), then the first tile of
  the face's image, first column, first row and width of the rectangle, and the number of the face's
  first row. Integers hold floats and not the reverse: a small integer seen as a float is denormal,
  which arithmetic may flush to zero. One last face stands for the rows that fill up the last chunk.

  Rows are numbered through all faces, modulo 2 ** 32: only differences count.
  """

  table: Int[Array, "N1 24"]
  starts: Int[Array, "N1"]  # the first row of each face, which has at least one

  @property
  def num_faces(self) -> int:
    """Faces of the whole batch."""
    return self.starts.shape[0] - 1


class Rows(NamedTuple):
  """A chunk of rows. Columns [R, 1] meet pixels [1, 16] in [R, 16]."""

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


def pixel_offsets(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
  """Image-space offsets [1, 16] of a tile's pixels from its first pixel."""
  index = np.arange(PIXELS)
  dx = np.float32(2.0 / grid.width) * (index % WIDE).astype(np.float32)
  dy = np.float32(2.0 / grid.height) * (index // WIDE).astype(np.float32)
  return dx[None], dy[None]


def bin_faces(face_vertices: Float[Array, "B F 3 3"], reach: Float[Array, ""], grid: Grid) -> Bins:
  """Finds the tiles that each face can touch.

  Args:
    face_vertices: corners in image space; faces that cannot be drawn may hold anything.
    reach: how far outside its triangle a face is felt, in image-space units.
    grid: size of the raster.

  Returns:
    The faces of all images in one list, image after image.
  """
  batch, faces = face_vertices.shape[:2]
  columns = face_vertices.reshape(batch * faces, 9)
  valid = drawable(columns)
  # Column by column: an array [N, 3, 2] is reduced over its 3 at ten times the cost.
  x, y, z = (
    tuple(jnp.where(valid, columns[:, 3 * i + c], 1.0) for i in range(3)) for c in range(3)
  )
  x, y = (tuple(jnp.clip(corner, -_FARTHEST, _FARTHEST) for corner in axis) for axis in (x, y))
  first_column, width = _tiles_along(x, reach, grid.width, WIDE)
  first_row, height = _tiles_along(y, reach, grid.height, TALL)
  touches = valid & (width > 0) & (height > 0)
  # Below the last row of tiles there is none.
  first_column = jnp.where(touches, first_column, 0)
  first_row = jnp.where(touches, first_row, grid.tile_rows)
  width, height = jnp.where(touches, width, 1), jnp.where(touches, height, 1)
  image = jnp.repeat(jnp.arange(batch, dtype=jnp.int32) * grid.tiles, faces)
  starts = jnp.concatenate([np.zeros(1, np.int32), jnp.cumsum(width * height, dtype=jnp.int32)])
  floats = [lax.bitcast_convert_type(v, jnp.int32) for v in face_numbers(x, y, z)]
  table = jnp.stack([*floats, image, first_column, first_row, width, starts[:-1]], axis=-1)
  unused = np.zeros((1, table.shape[1]), np.int32)
  unused[0, _FLOATS + 2], unused[0, _FLOATS + 3] = grid.tile_rows, 1
  return Bins(jnp.concatenate([table, unused]), starts)


def drawable(columns: Float[Array, "N 9"]) -> Bool[Array, "N"]:
  """True for faces that are drawn: every coordinate finite and every depth positive."""
  result = jnp.isfinite(columns[:, 0])
  for i in range(1, 9):
    result &= jnp.isfinite(columns[:, i])
  for i in (2, 5, 8):
    result &= columns[:, i] > 0.0
  return result


def _tiles_along(
  corners: tuple[Array, ...], reach: Array, size: int, side: int
) -> tuple[Array, ...]:
  """The first tile that three corners can touch along one axis, and how many; none is 0 or less."""
  least = jnp.minimum(jnp.minimum(corners[0], corners[1]), corners[2])
  most = jnp.maximum(jnp.maximum(corners[0], corners[1]), corners[2])
  # Pixel c has its centre at (2 c + 1 - W) / W; the slack covers rounding.
  slack = 1e-3
  low = (least - reach + 1.0) * (0.5 * size) - (0.5 + slack)
  high = (most + reach + 1.0) * (0.5 * size) - (0.5 - slack)
  first = jnp.maximum(jnp.ceil(jnp.clip(low, -1.0, float(size))).astype(jnp.int32), 0)
  last = jnp.minimum(jnp.floor(jnp.clip(high, -1.0, float(size))).astype(jnp.int32), size - 1)
  return first // side, jnp.where(first <= last, last // side - first // side + 1, 0)


def face_numbers(x: tuple[Array, ...], y: tuple[Array, ...], z: tuple[Array, ...]) -> list[Array]:
  """A face's record: corners, unit edge vectors, edge lengths, inverse determinant and depths.

  What follows from the corners is computed once a face: a row would compute it again at the cost of
  a third of its pixels.
  """
  along_x, along_y, lengths = [], [], []
  edge_x, edge_y = (tuple(c[(i + 1) % 3] - c[i] for i in range(3)) for c in (x, y))
  for i in range(3):
    length = jnp.sqrt(edge_x[i] * edge_x[i] + edge_y[i] * edge_y[i])
    directed = length > _SHORTEST_EDGE
    inverse = 1.0 / jnp.where(directed, length, 1.0)
    along_x.append(jnp.where(directed, edge_x[i] * inverse, 1.0))
    along_y.append(jnp.where(directed, edge_y[i] * inverse, 0.0))
    lengths.append(jnp.where(directed, length, 0.0))
  determinant = edge_x[0] * edge_y[1] - edge_y[0] * edge_x[1]
  size = jnp.maximum(jnp.abs(determinant), _SMALLEST_DETERMINANT)
  inverse_depth = [1.0 / jnp.clip(corner, _NEAREST_DEPTH, _FARTHEST_DEPTH) for corner in z]
  pairs = [[x[i], y[i]] for i in range(3)] + [[along_x[i], along_y[i]] for i in range(3)]
  flat = [number for pair in pairs for number in pair]
  return [*flat, *lengths, jnp.where(determinant < 0.0, -1.0, 1.0) / size, *inverse_depth]


class _Cursor(NamedTuple):
  """How far the rows have been visited."""

  face: Int[Array, ""]  # the first face that is not finished
  row: Int[Array, ""]  # the number of the next row


class _Kept(NamedTuple):
  """Rows that wait for their chunk to fill up."""

  waiting: Int[Array, ""]
  face: Int[Array, "R2"]
  number: Int[Array, "R2"]


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
    chunk: rows per step, at most 2 ** 15.
    body: takes a chunk of rows and the state, returns the new state.
    state: a pytree of arrays of fixed shapes.
  """
  chunk = _safe_chunk(chunk, grid)
  starts = _padded_starts(bins, chunk)

  def step(carry: tuple[_Cursor, State]) -> tuple[_Cursor, State]:
    cursor, state = carry
    face, number, cursor = _next_rows(starts, bins.num_faces, cursor, chunk)
    return cursor, body(_locate(bins, grid, face, number), state)

  carry = (_beginning(), state)
  return lax.while_loop(lambda carry: carry[0].face < bins.num_faces, step, carry)[1]


def over_kept_rows(
  bins: Bins,
  grid: Grid,
  chunk: int,
  keep: Callable[[Rows], Bool[Array, "R"]],
  body: Callable[[Rows, State], State],
  state: State,
) -> State:
  """`over_rows` for the rows that `keep` wants: they are gathered until they fill a chunk.

  Worth its while where `body` costs several times what `keep` does.

  Args:
    bins: the faces.
    grid: size of the raster.
    chunk: kept rows per step, at most 2 ** 15.
    keep: says of rows which to keep; it sees several chunks at a time.
    body: takes a chunk of kept rows and the state, returns the new state. Rows that fill up the
      last chunk are of the face that stands for unused rows.
    state: a pytree of arrays of fixed shapes.
  """
  look = _safe_chunk(default_chunk(bins.num_faces, _LOOK_CHUNK), grid)
  starts = _padded_starts(bins, look)
  total = bins.num_faces
  room = chunk + look  # fewer than a chunk wait when `look` more are looked at

  def search(carry: tuple[_Cursor, _Kept]) -> tuple[_Cursor, _Kept]:
    cursor, kept = carry
    face, number, cursor = _next_rows(starts, total, cursor, look)
    wanted = keep(_locate(bins, grid, face, number)) & (face < total)
    counted = _running_count(wanted)
    place = jnp.where(wanted, kept.waiting + counted - 1, room)
    kept = _Kept(
      kept.waiting + counted[-1],
      kept.face.at[place].set(face, mode="drop"),
      kept.number.at[place].set(number, mode="drop"),
    )
    return cursor, kept

  def searching(carry: tuple[_Cursor, _Kept]) -> Array:
    return (carry[0].face < total) & (carry[1].waiting < chunk)

  def step(carry: tuple[_Cursor, _Kept, State]) -> tuple[_Cursor, _Kept, State]:
    cursor, kept, state = carry
    cursor, kept = lax.while_loop(searching, search, (cursor, kept))
    used = np.arange(chunk, dtype=np.int32) < kept.waiting
    face = jnp.where(used, kept.face[:chunk], total)
    state = body(_locate(bins, grid, face, kept.number[:chunk]), state)
    rest = (jnp.roll(kept.face, -chunk), jnp.roll(kept.number, -chunk))
    return cursor, _Kept(jnp.maximum(kept.waiting - chunk, 0), *rest), state

  def unfinished(carry: tuple[_Cursor, _Kept, State]) -> Array:
    return (carry[0].face < total) | (carry[1].waiting > 0)

  none = jnp.zeros(room, jnp.int32)
  carry = (_beginning(), _Kept(jnp.zeros((), jnp.int32), none, none), state)
  return lax.while_loop(unfinished, step, carry)[2]


def _safe_chunk(chunk: int, grid: Grid) -> int:
  """A chunk so small that as many faces that cover the image differ by less than 2 ** 31 rows."""
  return min(chunk, 1 << max(0, 30 - grid.tiles.bit_length()))


def _beginning() -> _Cursor:
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
  """The tiles of rows of these numbers, and their faces' corners as seen from there."""
  record = bins.table.at[face].get(mode="promise_in_bounds")
  floats = lax.bitcast_convert_type(record[:, :_FLOATS], jnp.float32)
  image, first_column, first_row, width, start = (record[:, _FLOATS + i] for i in range(5))
  nth = jnp.where(face < bins.num_faces, number - start, 0)
  # An integer division by way of floats, which vectorises; exact below 2 ** 22 tiles.
  down = jnp.floor((nth.astype(jnp.float32) + 0.5) / width.astype(jnp.float32)).astype(jnp.int32)
  column = first_column + nth - down * width
  row = first_row + down
  tile = jnp.where(row < grid.tile_rows, image + row * grid.tile_columns + column, _NOWHERE)
  left = (2 * WIDE * column + (1 - grid.width)).astype(jnp.float32) / grid.width
  top = (2 * TALL * row + (1 - grid.height)).astype(jnp.float32) / grid.height
  active = (row < grid.tile_rows)[:, None]
  return rows_from(face, tile, floats[:, None], left[:, None], top[:, None], active)


def rows_from(
  face: Array, tile: Array, floats: Array, left: Array, top: Array, active: Array
) -> Rows:
  """Rows from the faces' records [..., floats] and the places from which they are seen."""
  numbers = [floats[..., i] for i in range(_FLOATS)]
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
  """
  record = bins.table.at[jnp.where(face < 0, bins.num_faces, face)].get(mode="promise_in_bounds")
  floats = lax.bitcast_convert_type(record[..., :_FLOATS], jnp.float32)
  index = np.arange(face.shape[0], dtype=np.int32) % grid.tiles
  dx, dy = pixel_offsets(grid)
  column, row = index % grid.tile_columns, index // grid.tile_columns
  left = ((2 * WIDE * column + 1 - grid.width).astype(np.float32) / grid.width)[:, None] + dx
  top = ((2 * TALL * row + 1 - grid.height).astype(np.float32) / grid.height)[:, None] + dy
  left, top = left.astype(np.float32), top.astype(np.float32)
  tile = jnp.arange(face.shape[0], dtype=jnp.int32)
  return rows_from(face, tile, floats, jnp.asarray(left), jnp.asarray(top), face >= 0)


def tile_image(image: Float[Array, "B H W *C"], grid: Grid) -> Float[Array, "tiles 16 *C"]:
  """An image as tiles, zero beyond its edges."""
  batch, channels = image.shape[0], image.shape[3:]
  rows, columns = grid.tile_rows, grid.tile_columns
  pad = ((0, 0), (0, rows * TALL - grid.height), (0, columns * WIDE - grid.width))
  image = jnp.pad(image, pad + ((0, 0),) * len(channels))
  image = image.reshape(batch, rows, TALL, columns, WIDE, *channels)
  return jnp.swapaxes(image, 2, 3).reshape(batch * grid.tiles, PIXELS, *channels)


def untile_image(tiles: Array, grid: Grid) -> Array:
  """The inverse of `tile_image`, for any trailing shape."""
  channels = tiles.shape[2:]
  rows, columns = grid.tile_rows, grid.tile_columns
  image = tiles.reshape(-1, rows, columns, TALL, WIDE, *channels)
  batch = image.shape[0]
  image = jnp.swapaxes(image, 2, 3).reshape(batch, rows * TALL, columns * WIDE, *channels)
  return image[:, : grid.height, : grid.width]


def default_chunk(num_faces: int, largest: int) -> int:
  """Rows per step: no more than a small scene has use for."""
  return int(min(largest, max(256, 1 << (4 * num_faces - 1).bit_length())))


__all__ = [
  "PIXELS",
  "Bins",
  "Grid",
  "Rows",
  "bin_faces",
  "default_chunk",
  "drawable",
  "face_numbers",
  "over_kept_rows",
  "over_rows",
  "pixel_offsets",
  "rows_at_pixels",
  "rows_from",
  "tile_image",
  "untile_image",
]
