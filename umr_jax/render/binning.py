"""Which faces can touch which pixels: rows of (face, tile), visited in chunks.

An image is cut into tiles of 4 x 4 pixels and kept as an array [tiles, 16]. A face touches the
tiles under its bounding box, grown by the distance at which SoftRas stops looking. Every (face,
tile) pair is one row of work. The rows are never listed: a `while_loop` with a dynamic trip count
visits them in chunks of a fixed size, so that shapes are static, work follows the real number of
rows, no capacity can overflow and no face is ever dropped.

Faces that touch nothing keep one row, which lands on a spare tile after the last of their image.
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
_ROW_BITS = 15

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
    """Tiles of one image; arrays of tiles hold one spare tile more."""
    return self.tile_rows * self.tile_columns


class Bins(NamedTuple):
  """Every face of the batch, and the rectangle of tiles that it can touch.

  `table` holds per face x0 y0 x1 y1 x2 y2 and the three inverse depths (float32 seen as int32),
  then the first tile of the face's image, and first column, first row and width of the rectangle.
  Integers hold floats and not the reverse: a small integer seen as a float is denormal, which
  arithmetic may flush to zero. One last face stands for the rows that fill up the last chunk.
  """

  table: Int[Array, "N1 13"]
  counts: Int[Array, "N"]  # rows of each face, at least one

  @property
  def num_faces(self) -> int:
    """Faces of the whole batch."""
    return self.counts.shape[0]


class Rows(NamedTuple):
  """A chunk of rows. Columns [R, 1] meet pixels [1, 16] in [R, 16]."""

  face: Int[Array, "R"]  # index into all N faces; N for a row that is not used
  tile: Int[Array, "R"]  # index into all tiles; the spare tile for a face that touches nothing
  x: tuple[Float[Array, "R 1"], ...]  # from each vertex to the tile's first pixel centre
  y: tuple[Float[Array, "R 1"], ...]
  left: Float[Array, "R 1"]  # image-space position of the tile's first pixel centre
  top: Float[Array, "R 1"]
  inverse_depth: tuple[Float[Array, "R 1"], ...]
  active: Bool[Array, "R 1"]  # False for rows on a spare tile


def pixel_offsets(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
  """Image-space offsets [1, 16] of a tile's pixels from its first pixel."""
  index = np.arange(PIXELS)
  dx = np.float32(2.0 / grid.width) * (index % WIDE).astype(np.float32)
  dy = np.float32(2.0 / grid.height) * (index // WIDE).astype(np.float32)
  return dx[None], dy[None]


def drawable(face_vertices: Float[Array, "N 3 3"]) -> Array:
  """True for faces that are drawn: every coordinate finite and every depth positive."""
  finite = jnp.all(jnp.isfinite(face_vertices), axis=(-2, -1))
  return finite & jnp.all(face_vertices[..., 2] > 0.0, axis=-1)


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
  corners = face_vertices.reshape(batch * faces, 3, 3)
  valid = drawable(corners)
  corners = jnp.where(valid[:, None, None], corners, 1.0)
  xy = jnp.clip(corners[..., :2], -_FARTHEST, _FARTHEST)
  inverse_depth = 1.0 / jnp.clip(corners[..., 2], _NEAREST_DEPTH, _FARTHEST_DEPTH)

  size = np.array([grid.width, grid.height], np.float32)
  # Pixel c has its centre at (2 c + 1 - W) / W; the slack covers rounding.
  slack = 1e-3
  low = (jnp.min(xy, axis=1) - reach + 1.0) * (0.5 * size)[None] - (0.5 + slack)
  high = (jnp.max(xy, axis=1) + reach + 1.0) * (0.5 * size)[None] - (0.5 - slack)
  low = jnp.ceil(jnp.clip(low, -1.0, size[None])).astype(jnp.int32)
  high = jnp.floor(jnp.clip(high, -1.0, size[None])).astype(jnp.int32)
  low, high = jnp.maximum(low, 0), jnp.minimum(high, (size - 1).astype(np.int32)[None])
  touches = valid & jnp.all(low <= high, axis=-1)
  tile = np.array([[WIDE, TALL]], np.int32)
  first = jnp.where(touches[:, None], low // tile, 0)
  extent = jnp.where(touches[:, None], high // tile - low // tile + 1, 1)

  # Below the last row of tiles stands the spare one.
  first_row = jnp.where(touches, first[:, 1], grid.tile_rows)
  image = jnp.repeat(jnp.arange(batch, dtype=jnp.int32) * (grid.tiles + 1), faces)
  floats = jnp.concatenate([xy.reshape(-1, 6), inverse_depth], axis=-1)
  table = jnp.concatenate(
    [
      lax.bitcast_convert_type(floats, jnp.int32),
      jnp.stack([image, first[:, 0], first_row, extent[:, 0]], axis=-1),
    ],
    axis=-1,
  )
  unused = np.zeros((1, table.shape[1]), np.int32)
  unused[0, 11], unused[0, 12] = grid.tile_rows, 1
  return Bins(jnp.concatenate([table, unused]), extent[:, 0] * extent[:, 1])


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
  total = bins.num_faces
  counts = jnp.concatenate([bins.counts, np.zeros(chunk, np.int32)])
  index = np.arange(chunk, dtype=np.int32)

  def unfinished(carry: tuple[Array, Array, State]) -> Array:
    return carry[0] < total

  def step(carry: tuple[Array, Array, State]) -> tuple[Array, Array, State]:
    first, done, state = carry
    # Rows still to do of the next faces. Cut to more than fit, so that their sum cannot overflow.
    left = lax.dynamic_slice(counts, (first,), (chunk,))
    left = jnp.minimum(left - jnp.where(index == 0, done, 0), chunk + 1)
    ends = jnp.cumsum(left, dtype=jnp.int32)
    starts = ends - left
    # Where a face starts stands (face, start), packed in one integer; a running maximum spreads it.
    spread = jnp.zeros(chunk, jnp.int32)
    spread = spread.at[jnp.where(left > 0, starts, chunk)].set(
      (index << _ROW_BITS) | jnp.minimum(starts, chunk - 1), mode="drop"
    )
    spread = lax.cummax(spread)
    face = spread >> _ROW_BITS
    nth = jnp.asarray(index) - (spread & ((1 << _ROW_BITS) - 1)) + jnp.where(face == 0, done, 0)
    face = jnp.where(index < ends[-1], first + face, total)
    state = body(_locate(bins, grid, face, nth), state)

    finished = jnp.sum(ends <= chunk, dtype=jnp.int32)
    begun = chunk - starts[jnp.minimum(finished, chunk - 1)] + jnp.where(finished == 0, done, 0)
    return first + finished, jnp.where(finished == chunk, 0, begun), state

  zero = jnp.zeros((), jnp.int32)
  return lax.while_loop(unfinished, step, (zero, zero, state))[2]


def _locate(bins: Bins, grid: Grid, face: Int[Array, "R"], nth: Int[Array, "R"]) -> Rows:
  """The `nth` tile of each face, and the face's corners as seen from it."""
  record = bins.table.at[face].get(mode="promise_in_bounds")
  floats = lax.bitcast_convert_type(record[:, :9], jnp.float32)
  # An integer division by way of floats, which vectorises; exact below 2 ** 22 tiles.
  width = record[:, 12]
  down = jnp.floor((nth.astype(jnp.float32) + 0.5) / width.astype(jnp.float32)).astype(jnp.int32)
  column = record[:, 10] + nth - down * width
  row = record[:, 11] + down
  tile = record[:, 9] + jnp.minimum(row * grid.tile_columns + column, grid.tiles)
  left = (2 * WIDE * column + (1 - grid.width)).astype(jnp.float32) / grid.width
  top = (2 * TALL * row + (1 - grid.height)).astype(jnp.float32) / grid.height
  left, top = left[:, None], top[:, None]
  return Rows(
    face=face,
    tile=tile,
    x=tuple(left - floats[:, i, None] for i in (0, 2, 4)),
    y=tuple(top - floats[:, i, None] for i in (1, 3, 5)),
    left=left,
    top=top,
    inverse_depth=tuple(floats[:, i, None] for i in (6, 7, 8)),
    active=(row < grid.tile_rows)[:, None],
  )


def rows_at_pixels(bins: Bins, grid: Grid, face: Int[Array, "tiles 16"]) -> Rows:
  """One given face at each pixel, as rows whose columns are [tiles, 16]; see `Rows`.

  Where `face` is negative the result is that of the face which fills up the last chunk.
  """
  record = bins.table.at[jnp.where(face < 0, bins.num_faces, face)].get(mode="promise_in_bounds")
  floats = lax.bitcast_convert_type(record[..., :9], jnp.float32)
  index = np.arange(face.shape[0], dtype=np.int32) % (grid.tiles + 1)
  dx, dy = pixel_offsets(grid)
  column, row = index % grid.tile_columns, index // grid.tile_columns
  left = ((2 * WIDE * column + 1 - grid.width).astype(np.float32) / grid.width)[:, None] + dx
  top = ((2 * TALL * row + 1 - grid.height).astype(np.float32) / grid.height)[:, None] + dy
  left, top = left.astype(np.float32), top.astype(np.float32)
  return Rows(
    face=face,
    tile=jnp.arange(face.shape[0], dtype=jnp.int32),
    x=tuple(left - floats[..., i] for i in (0, 2, 4)),
    y=tuple(top - floats[..., i] for i in (1, 3, 5)),
    left=jnp.asarray(left),
    top=jnp.asarray(top),
    inverse_depth=tuple(floats[..., i] for i in (6, 7, 8)),
    active=face >= 0,
  )


def tile_image(image: Float[Array, "B H W *C"], grid: Grid) -> Float[Array, "tiles 16 *C"]:
  """An image as tiles, zero beyond its edges and on the spare tile."""
  batch, channels = image.shape[0], image.shape[3:]
  rows, columns = grid.tile_rows, grid.tile_columns
  pad = ((0, 0), (0, rows * TALL - grid.height), (0, columns * WIDE - grid.width))
  image = jnp.pad(image, pad + ((0, 0),) * len(channels))
  image = image.reshape(batch, rows, TALL, columns, WIDE, *channels)
  tiles = jnp.swapaxes(image, 2, 3).reshape(batch, grid.tiles, PIXELS, *channels)
  tiles = jnp.pad(tiles, ((0, 0), (0, 1)) + ((0, 0),) * (1 + len(channels)))
  return tiles.reshape(batch * (grid.tiles + 1), PIXELS, *channels)


def untile_image(tiles: Array, grid: Grid) -> Array:
  """The inverse of `tile_image`, for any trailing shape."""
  channels = tiles.shape[2:]
  rows, columns = grid.tile_rows, grid.tile_columns
  batch = tiles.shape[0] // (grid.tiles + 1)
  image = tiles.reshape(batch, grid.tiles + 1, PIXELS, *channels)[:, :-1]
  image = image.reshape(batch, rows, columns, TALL, WIDE, *channels)
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
  "over_rows",
  "pixel_offsets",
  "rows_at_pixels",
  "tile_image",
  "untile_image",
]
