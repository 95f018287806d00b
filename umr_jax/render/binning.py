"""Which faces can touch which pixels, and what is computed once for each face.

An image is divided into tiles of 4 x 4 pixels and kept as an array [tiles, 16]. A face touches the
tiles under its bounding box, grown by the blur radius, beyond which SoftRas
ignores it. Every (face,
tile) pair is one row of work; `rows` visits them.

Faces that touch nothing keep one row, whose tile does not exist: writing to it changes nothing.
This bounds the number of faces in a chunk of rows by its length, which is what makes the search for
the faces of a chunk cheap, however large the batch.
"""

from typing import NamedTuple

import jax
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

  One last face stands for the rows that fill up the last chunk.

  Rows are numbered through all faces, modulo 2 ** 32: only differences count.
  """

  shapes: Float[Array, "N1 19"]  # from `face_numbers`
  # The first tile of the face's image, first column, first row and width of the rectangle, and the
  # number of the face's first row.
  places: Int[Array, "N1 5"]
  starts: Int[Array, "N1"]  # the first row of each face, which has at least one

  @property
  def num_faces(self) -> int:
    """Faces of the whole batch."""
    return self.starts.shape[0] - 1


def pixel_offsets(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
  """Image-space offsets [1, 16] of a tile's pixels from its first pixel."""
  index = np.arange(PIXELS)
  dx = np.float32(2.0 / grid.width) * (index % WIDE).astype(np.float32)
  dy = np.float32(2.0 / grid.height) * (index // WIDE).astype(np.float32)
  return dx[None], dy[None]


def bin_faces(face_vertices: Float[Array, "B F 3 3"], radius: Float[Array, ""], grid: Grid) -> Bins:
  """Finds the tiles that each face can touch.

  Args:
    face_vertices: corners in image space; faces that cannot be rendered may hold anything.
    radius: how far the support of a face extends beyond its triangle, in image-space units.
    grid: size of the raster.

  Returns:
    The faces of all images in one list, image after image.
  """
  batch, faces = face_vertices.shape[:2]
  columns = face_vertices.reshape(batch * faces, 9)
  valid = renderable(columns)
  # Column by column: an array [N, 3, 2] is reduced over its 3 at ten times the cost.
  x, y, z = (
    tuple(jnp.where(valid, columns[:, 3 * i + c], 1.0) for i in range(3)) for c in range(3)
  )
  x, y = (tuple(jnp.clip(corner, -_FARTHEST, _FARTHEST) for corner in axis) for axis in (x, y))
  first_column, width = _tiles_along(x, radius, grid.width, WIDE)
  first_row, height = _tiles_along(y, radius, grid.height, TALL)
  touches = valid & (width > 0) & (height > 0)
  # Below the last row of tiles there is none.
  first_column = jnp.where(touches, first_column, 0)
  first_row = jnp.where(touches, first_row, grid.tile_rows)
  width, height = jnp.where(touches, width, 1), jnp.where(touches, height, 1)
  image = jnp.repeat(jnp.arange(batch, dtype=jnp.int32) * grid.tiles, faces)
  starts = jnp.concatenate([np.zeros(1, np.int32), jnp.cumsum(width * height, dtype=jnp.int32)])
  shapes = jnp.stack(face_numbers(x, y, z), axis=-1)
  places = jnp.stack([image, first_column, first_row, width, starts[:-1]], axis=-1)
  nowhere = np.array([[0, 0, grid.tile_rows, 1, 0]], np.int32)
  return Bins(
    jnp.concatenate([shapes, np.zeros((1, shapes.shape[1]), np.float32)]),
    jnp.concatenate([places, nowhere]),
    starts,
  )


def renderable(columns: Float[Array, "N 9"]) -> Bool[Array, "N"]:
  """True for faces that are rendered: every coordinate finite and every depth positive."""
  result = jnp.isfinite(columns[:, 0])
  for i in range(1, 9):
    result &= jnp.isfinite(columns[:, i])
  for i in (2, 5, 8):
    result &= columns[:, i] > 0.0
  return result


def _tiles_along(
  corners: tuple[Array, ...], radius: Array, size: int, side: int
) -> tuple[Array, ...]:
  """The first tile that three corners can touch along one axis, and how many; none is 0 or less."""
  least = jnp.minimum(jnp.minimum(corners[0], corners[1]), corners[2])
  most = jnp.maximum(jnp.maximum(corners[0], corners[1]), corners[2])
  # Pixel c has its centre at (2 c + 1 - W) / W; the slack covers rounding.
  slack = 1e-3
  low = (least - radius + 1.0) * (0.5 * size) - (0.5 + slack)
  high = (most + radius + 1.0) * (0.5 * size) - (0.5 - slack)
  first = jnp.maximum(jnp.ceil(jnp.clip(low, -1.0, float(size))).astype(jnp.int32), 0)
  last = jnp.minimum(jnp.floor(jnp.clip(high, -1.0, float(size))).astype(jnp.int32), size - 1)
  return first // side, jnp.where(first <= last, last // side - first // side + 1, 0)


def face_numbers(x: tuple[Array, ...], y: tuple[Array, ...], z: tuple[Array, ...]) -> list[Array]:
  """A face's record: corners, unit edge vectors, edge lengths, inverse determinant and depths.

  What follows from the corners is computed once a face: a row would compute it again at the cost of
  a third of its pixels.

  Args:
    x: of the faces' corners.
    y: of the faces' corners.
    z: depths of the faces' corners.
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


def tile_image(image: Float[Array, "B H W *C"], grid: Grid) -> Float[Array, "tiles 16 *C"]:
  """An image as tiles, zero beyond its edges.

  Args:
    image: of the raster's size.
    grid: size of the raster.
  """
  batch, channels = image.shape[0], image.shape[3:]
  image = _pad(image, grid)
  image = image.reshape(batch, grid.tile_rows, TALL, grid.tile_columns, WIDE, *channels)
  return jnp.swapaxes(image, 2, 3).reshape(batch * grid.tiles, PIXELS, *channels)


def tiles_at(
  image: Float[Array, "B H W C"], grid: Grid, tile: Int[Array, "R"]
) -> Float[Array, "R 16 C"]:
  """`tile_image(image, grid)[tile]`, without a copy of the image for whole numbers of tiles.

  Args:
    image: of the raster's size.
    grid: size of the raster.
    tile: numbers of tiles, through all images.
  """
  channels = image.shape[3]
  lines = _pad(image, grid).reshape(-1, grid.tile_columns * WIDE * channels)
  line = TALL * (tile // grid.tile_columns)
  column = WIDE * channels * (tile % grid.tile_columns)
  window = jax.vmap(lambda *start: lax.dynamic_slice(lines, start, (TALL, WIDE * channels)))
  return window(line, column).reshape(-1, PIXELS, channels)


def _pad(image: Float[Array, "B H W *C"], grid: Grid) -> Array:
  """Zeros below and to the right, up to a whole number of tiles."""
  down, right = grid.tile_rows * TALL - grid.height, grid.tile_columns * WIDE - grid.width
  return jnp.pad(image, ((0, 0), (0, down), (0, right)) + ((0, 0),) * (image.ndim - 3))


def untile_image(tiles: Array, grid: Grid) -> Array:
  """The inverse of `tile_image`, for any trailing shape.

  Args:
    tiles: [tiles, 16, ...], of a raster.
    grid: size of the raster.
  """
  channels = tiles.shape[2:]
  rows, columns = grid.tile_rows, grid.tile_columns
  image = tiles.reshape(-1, rows, columns, TALL, WIDE, *channels)
  batch = image.shape[0]
  image = jnp.swapaxes(image, 2, 3).reshape(batch, rows * TALL, columns * WIDE, *channels)
  return image[:, : grid.height, : grid.width]
