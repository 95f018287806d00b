"""A small depth buffer in NumPy: which face each pixel shows, on the host, without JAX.

It draws the synthetic category and decides which keypoints are visible. It is apart from
`umr_jax.render` on purpose: pictures that the system learns from should not come from the renderer
that it learns with.
"""

from typing import NamedTuple

import numpy as np

# Entries (face, pixel of its bounding box) that are examined at once: bounds the memory.
_CHUNK = 1 << 21


class Hits(NamedTuple):
  """The front face of every covered pixel; N covered pixels, in no promised order."""

  pixels: np.ndarray  # [N] int64 flat index, row * size + column
  faces: np.ndarray  # [N] int64 index of the nearest face
  weights: np.ndarray  # [N, 3] float64 barycentric coordinates, of that face's vertices
  depth: np.ndarray  # [size * size] float64, infinite where nothing is drawn


def zbuffer(projected: np.ndarray, faces: np.ndarray, *, size: int, cull: bool = False) -> Hits:
  """Finds the nearest face at every pixel centre of a square image.

  Args:
    projected: [V, 3] vertices in image space: x right and y down in [-1, 1] to the outer pixel
      edges, z into the scene.
    faces: [F, 3] vertex indices.
    size: pixels per side.
    cull: leave out faces whose vertices run clockwise on the screen, which is how the far side of
      a closed, outward wound surface appears. It halves the work.

  Returns:
    `Hits`. Of faces at equal depth the one with the highest index wins.
  """
  # Pixel units with 0 at the first pixel's centre, so that sample points are integers.
  xy = (projected[:, :2].astype(np.float64) + 1.0) * (size / 2.0) - 0.5
  corners = xy[faces]
  edge_a, edge_b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
  area = edge_a[:, 0] * edge_b[:, 1] - edge_a[:, 1] * edge_b[:, 0]
  low = np.maximum(np.ceil(corners.min(axis=1)), 0.0)
  high = np.minimum(np.floor(corners.max(axis=1)), size - 1.0)
  extent = high - low + 1.0
  drawn = (area < -1e-12) if cull else (np.abs(area) > 1e-12)
  kept = np.flatnonzero(drawn & (extent[:, 0] > 0.0) & (extent[:, 1] > 0.0) & np.isfinite(area))

  depth = np.full(size * size, np.inf)
  winner = np.full(size * size, -1, np.int64)
  corner_depth = projected[faces, 2].astype(np.float64)
  planes = _barycentric_planes(corners[kept], area[kept])
  counts = (extent[kept, 0] * extent[kept, 1]).astype(np.int64)
  ends = np.cumsum(counts)
  start = 0
  while start < kept.size:
    # At least one face a turn, however large its box.
    taken = ends[start] - counts[start] + _CHUNK
    stop = max(int(np.searchsorted(ends, taken, side="right")), start + 1)
    part = slice(start, stop)
    _draw(
      depth,
      winner,
      kept[part],
      low[kept[part]].astype(np.int64),
      extent[kept[part], 0],
      counts[part],
      planes[part],
      corner_depth[kept[part]],
      size,
    )
    start = stop

  pixels = np.flatnonzero(winner >= 0)
  hit = winner[pixels]
  position = np.searchsorted(kept, hit)
  first, second = _evaluate(planes[position], pixels % size, pixels // size)
  weights = np.stack([first, second, 1.0 - first - second], axis=-1)
  return Hits(pixels=pixels, faces=hit, weights=weights, depth=depth)


def _barycentric_planes(corners: np.ndarray, area: np.ndarray) -> np.ndarray:
  """[F, 2, 3]: the first two barycentric coordinates as a + b x + c y."""
  rows = []
  for first, second in ((1, 2), (2, 0)):
    p, q = corners[:, first], corners[:, second]
    slope_x, slope_y = p[:, 1] - q[:, 1], q[:, 0] - p[:, 0]
    constant = p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]
    rows.append(np.stack([constant, slope_x, slope_y], axis=-1) / area[:, None])
  return np.stack(rows, axis=1)


def _evaluate(planes: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The first two barycentric coordinates at points given in pixel units."""
  first = planes[:, 0, 0] + planes[:, 0, 1] * x + planes[:, 0, 2] * y
  second = planes[:, 1, 0] + planes[:, 1, 1] * x + planes[:, 1, 2] * y
  return first, second


def _draw(
  depth: np.ndarray,
  winner: np.ndarray,
  ids: np.ndarray,
  low: np.ndarray,
  width: np.ndarray,
  counts: np.ndarray,
  planes: np.ndarray,
  corner_depth: np.ndarray,
  size: int,
) -> None:
  """Draws faces into `depth` and `winner`: all pixels of all bounding boxes as one flat list."""
  owner = np.repeat(np.arange(ids.size), counts)
  local = np.arange(owner.size) - np.repeat(np.cumsum(counts) - counts, counts)
  row, column = np.divmod(local, width.astype(np.int64)[owner])
  x, y = low[owner, 0] + column, low[owner, 1] + row
  first, second = _evaluate(planes[owner], x, y)
  # A pixel centre on a shared edge must belong to at least one of its two faces.
  inside = np.flatnonzero((first > -1e-9) & (second > -1e-9) & (first + second < 1.0 + 1e-9))
  owner, pixels = owner[inside], y[inside] * size + x[inside]
  near = corner_depth[owner]
  first, second = first[inside], second[inside]
  z = near[:, 2] + first * (near[:, 0] - near[:, 2]) + second * (near[:, 1] - near[:, 2])
  np.minimum.at(depth, pixels, z)
  nearest = z <= depth[pixels]
  # A face drawn in an earlier chunk loses the pixels that this chunk brought nearer.
  winner[pixels[nearest]] = ids[owner[nearest]]
