"""A small z-buffer in NumPy: the nearest face of each pixel, on the host, without JAX.

It renders the synthetic category and decides which keypoints are visible. It is apart from
`umr_jax.render` on purpose: training images should not come from the renderer of the losses.
"""

from typing import NamedTuple

import numpy as np

# Entries (face, pixel of its bounding box) that are examined at once: bounds the memory.
_CHUNK = 1 << 21


class Fragments(NamedTuple):
  """The front face of every covered pixel; N covered pixels, in no promised order."""

  pixels: np.ndarray  # [N] int64 flat index, row * size + column
  faces: np.ndarray  # [N] int64 index of the nearest face
  weights: np.ndarray  # [N, 3] float64 barycentric coordinates, of that face's vertices
  depth: np.ndarray  # [size * size] float64, infinite where no face is


class _Faces(NamedTuple):
  """Faces to rasterize, in pixel units with 0 at the first pixel's centre."""

  ids: np.ndarray  # [F]
  low: np.ndarray  # [F, 2] int64, the first pixel of the bounding box
  width: np.ndarray  # [F] int64, of the bounding box
  counts: np.ndarray  # [F] int64, pixels of the bounding box
  planes: np.ndarray  # [F, 2, 3] see `_barycentric_planes`
  depth: np.ndarray  # [F, 3] of the corners


def zbuffer(
  projected: np.ndarray, faces: np.ndarray, *, size: int, cull: bool = False
) -> Fragments:
  """Finds the nearest face at every pixel centre of a square image.

  Args:
    projected: [V, 3] vertices in image space: x right and y down in [-1, 1] to the outer pixel
      edges, z into the scene.
    faces: [F, 3] vertex indices.
    size: pixels per side.
    cull: leave out back faces, whose vertices run clockwise on the screen: the far side of a
      closed, outward wound surface. It halves the work.

  Returns:
    The fragments. Of faces at equal depth the one with the highest index wins.
  """
  # Pixel units with 0 at the first pixel's centre, so that sample points are integers.
  xy = (projected[:, :2].astype(np.float64) + 1.0) * (size / 2.0) - 0.5
  corners = xy[faces]
  edge_a, edge_b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
  area = edge_a[:, 0] * edge_b[:, 1] - edge_a[:, 1] * edge_b[:, 0]
  low = np.maximum(np.ceil(corners.min(axis=1)), 0.0)
  high = np.minimum(np.floor(corners.max(axis=1)), size - 1.0)
  extent = high - low + 1.0
  front = (area < -1e-12) if cull else (np.abs(area) > 1e-12)
  kept = np.flatnonzero(front & (extent[:, 0] > 0.0) & (extent[:, 1] > 0.0) & np.isfinite(area))

  depth = np.full(size * size, np.inf)
  winner = np.full(size * size, -1, np.int64)
  planes = _barycentric_planes(corners[kept], area[kept])
  counts = (extent[kept, 0] * extent[kept, 1]).astype(np.int64)
  candidates = _Faces(
    ids=kept,
    low=low[kept].astype(np.int64),
    width=extent[kept, 0].astype(np.int64),
    counts=counts,
    planes=planes,
    depth=projected[faces[kept], 2].astype(np.float64),
  )
  ends = np.cumsum(counts)
  start = 0
  while start < kept.size:
    # At least one face a turn, however large its box.
    taken = ends[start] - counts[start] + _CHUNK
    stop = max(int(np.searchsorted(ends, taken, side="right")), start + 1)
    _rasterize(depth, winner, _Faces(*(array[start:stop] for array in candidates)), size)
    start = stop

  pixels = np.flatnonzero(winner >= 0)
  hit = winner[pixels]
  position = np.searchsorted(kept, hit)
  first, second = _evaluate(planes[position], pixels % size, pixels // size)
  weights = np.stack([first, second, 1.0 - first - second], axis=-1)
  return Fragments(pixels=pixels, faces=hit, weights=weights, depth=depth)


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


def _rasterize(depth: np.ndarray, winner: np.ndarray, faces: _Faces, size: int) -> None:
  """Writes faces into `depth` and `winner`: all pixels of all bounding boxes as one flat list."""
  owner = np.repeat(np.arange(faces.ids.size), faces.counts)
  local = np.arange(owner.size) - np.repeat(np.cumsum(faces.counts) - faces.counts, faces.counts)
  row, column = np.divmod(local, faces.width[owner])
  x, y = faces.low[owner, 0] + column, faces.low[owner, 1] + row
  first, second = _evaluate(faces.planes[owner], x, y)
  # A pixel centre on a shared edge must belong to at least one of its two faces.
  inside = np.flatnonzero((first > -1e-9) & (second > -1e-9) & (first + second < 1.0 + 1e-9))
  owner, pixels = owner[inside], y[inside] * size + x[inside]
  corners = faces.depth[owner]
  first, second = first[inside], second[inside]
  z = (
    corners[:, 2]
    + first * (corners[:, 0] - corners[:, 2])
    + second * (corners[:, 1] - corners[:, 2])
  )
  np.minimum.at(depth, pixels, z)
  nearest = z <= depth[pixels]
  # A face of an earlier chunk loses the pixels that this chunk brought nearer.
  winner[pixels[nearest]] = faces.ids[owner[nearest]]
