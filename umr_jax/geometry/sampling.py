"""Where images, voxel grids and faces are sampled: pixel centres, texels, look-up, pooling."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from umr_jax.checking import checked


@checked
def bilinear_sample(
  image: Float[Array, "*B H W C"], points: Float[Array, "*B N 2"]
) -> Float[Array, "*B N C"]:
  """Samples images at continuous positions; differentiable in the image and in the positions.

  Args:
    image: what is read: images, flow maps, barrier fields.
    points: (x, y), with [-1, 1] from outer pixel edge to outer pixel edge, so that the centre of
      column i of W lies at (2 i + 1 - W) / W. Any number; finite.

  Returns:
    The values. Beyond the outermost pixel centres they fade to zero over one pixel, and further out
    they and their gradients are zero. A NaN position gives NaN.

  Source: Kanazawa et al. 2018, section 3.2 (texture flow), which Li et al. 2020 adopt.
    Departs: one rule everywhere, where the released code mixes pixel centres with aligned corners.
  """
  *batch, height, width, channels = image.shape
  column, right = _split((points[..., 0] + 1.0) * (0.5 * width) - 0.5, width)
  row, down = _split((points[..., 1] + 1.0) * (0.5 * height) - 0.5, height)
  # One flat table of pixels for the whole batch. On a CPU, four gathers fused with their weights
  # are several times faster than one gather of 2 x 2 blocks from a table of those.
  pixels = image.reshape(-1, channels)
  first = (jnp.arange(math.prod(batch), dtype=jnp.int32) * (height * width)).reshape(*batch, 1)
  total = jnp.zeros((*points.shape[:-1], channels), image.dtype)
  for y, weight_y in ((row, 1.0 - down), (row + 1, down)):
    for x, weight_x in ((column, 1.0 - right), (column + 1, right)):
      inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
      weight = weight_x * weight_y * inside.astype(points.dtype)
      index = first + jnp.clip(y, 0, height - 1) * width + jnp.clip(x, 0, width - 1)
      total += weight[..., None] * jnp.take(pixels, index, axis=0, mode="clip")
  return total


@checked
def trilinear_sample(
  grid: Float[Array, "X Y Z C"], points: Float[Array, "*N 3"]
) -> Float[Array, "*N C"]:
  """Samples a voxel grid at continuous positions; differentiable in the grid.

  Args:
    grid: what is read.
    points: (x, y, z), with [-1, 1] from outer voxel face to outer voxel face. Finite.

  Returns:
    The values. Beyond the outermost centres they fade to zero over one voxel.
  """
  sizes = grid.shape[:3]
  voxels = grid.reshape(-1, grid.shape[-1])
  axes = [_split((points[..., i] + 1.0) * (0.5 * n) - 0.5, n) for i, n in enumerate(sizes)]
  total = jnp.zeros((*points.shape[:-1], grid.shape[-1]), grid.dtype)
  for corner in itertools.product((0, 1), repeat=3):
    index = jnp.zeros(points.shape[:-1], jnp.int32)
    weight = jnp.ones(points.shape[:-1], points.dtype)
    for (before, rest), size, next_one in zip(axes, sizes, corner, strict=True):
      at = before + next_one
      inside = ((at >= 0) & (at < size)).astype(points.dtype)
      weight *= inside * (rest if next_one else 1.0 - rest)
      index = index * size + jnp.clip(at, 0, size - 1)
    total += weight[..., None] * jnp.take(voxels, index, axis=0, mode="clip")
  return total


@checked
def affine_sample(
  image: Float[Array, "B H W C"], matrix: Float[Array, "B 2 3"], *, fill: float = 0.0
) -> Float[Array, "B H W C"]:
  """Images turned, shifted or scaled: each pixel shows what its matrix finds for it.

  Args:
    image: maps of any kind.
    matrix: from a place in the new image to the one in the old image that is found there; the last
      column shifts. Places in [-1, 1] from outer pixel edge to outer pixel edge.
    fill: what lies outside of the old image.
  """
  batch, height, width, channels = image.shape
  grid = jnp.asarray(pixel_centers(height, width).reshape(-1, 2), image.dtype)
  points = jnp.einsum("bij,nj->bni", matrix[..., :2], grid) + matrix[:, None, :, 2]
  # Outside, a look-up gives zero.
  moved = bilinear_sample(image - fill, points) + fill
  return moved.reshape(batch, height, width, channels)


@checked
def average_pool(image: Float[Array, "B H W *C"], size: int) -> Float[Array, "B h w *C"]:
  """The image at a smaller size, each pixel the mean of those that it covers.

  Args:
    image: a square image, or any map of it.
    size: pixels per side; divides the image's.
  """
  batch, height, _, *channels = image.shape
  block = height // size
  return image.reshape(batch, size, block, size, block, *channels).mean(axis=(2, 4))


def choose_rows(
  values: Float[Array, "B K *rest"], chosen: Int[Array, "B"]
) -> Float[Array, "B *rest"]:
  """Of the K rows that each image has, the one with the given number.

  Args:
    values: of every image, its camera hypotheses for example.
    chosen: one row per image.
  """
  return jax.vmap(lambda row, k: row[k])(values, chosen)


def pixel_centers(height: int, width: int) -> Float[np.ndarray, "H W 2"]:
  """Where (x, y) the centres of an image's pixels are, in [-1, 1] from outer edge to outer edge.

  Args:
    height: in pixels.
    width: in pixels.
  """
  grid = np.meshgrid(axis_centers(width), axis_centers(height))
  return np.stack(grid, axis=-1).astype(np.float32)


def axis_centers(size: int) -> Float[np.ndarray, "size"]:
  """The centres of `size` pixels along one axis, in [-1, 1] from outer edge to outer edge."""
  return (2.0 * np.arange(size) + 1.0 - size) / size


def texel_barycentrics(texels_per_side: int) -> np.ndarray:
  """The centroid of every texel of a face, in the order in which the renderer reads texels.

  The renderer divides a face into R * R congruent triangles. With barycentric weights w0, w1 of the
  first two corners it reads the cell (i, j) = (floor(w0 R), floor(w1 R)): texel j R + i is the
  lower triangle of that cell, and (R - 1 - j) R + (R - 1 - i) the upper one.

  Args:
    texels_per_side: R, at least 1.

  Returns:
    [R * R, 3] weights of the face's corners, float64, all positive.

  Source: Liu et al. 2019 (SoftRas), surface textures.
    Departs: the released code fills the texels in another order, and reads 42% of each face's area
    from samples outside the face.
  """
  row, column = np.divmod(np.arange(texels_per_side**2), texels_per_side)
  lower = row + column < texels_per_side
  last = texels_per_side - 1
  w0 = np.where(lower, column + 1.0 / 3.0, last - column + 2.0 / 3.0) / texels_per_side
  w1 = np.where(lower, row + 1.0 / 3.0, last - row + 2.0 / 3.0) / texels_per_side
  return np.stack([w0, w1, 1.0 - w0 - w1], axis=-1)


def _split(position: Array, size: int) -> tuple[Array, Array]:
  """A pixel position as the pixel before it, -1 .. size, and the rest, 0 .. 1."""
  # Clipped before the cast: a huge float has no integer. Outside, the gradient is zero.
  position = jnp.clip(position, -1.0, float(size))
  before = jnp.floor(position)
  return before.astype(jnp.int32), position - before
