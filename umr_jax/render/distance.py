"""The formulae of SoftRas for one (pixel, face) pair, on rows of (face, tile).

Everything is computed from the tile's corner relative to the face's corners, never from absolute
positions: the signed distance is a difference of products, and dividing it by sigma multiplies
rounding errors by up to 1 / sigma.

On speed: XLA fuses cheap operations into all of their consumers, which then repeat them, but it
computes a division or an exponential once and stores it. What many consumers need is therefore
made to pass through one, masks included (`locate_nearest`, and `Pairs` in `aggregate`).

Source: Liu et al. 2019, "Soft Rasterizer", sections 3.2 and 3.3; with the clipping of barycentric
weights of the kernel that UMR was trained with.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from umr_jax.render.binning import Rows

# The determinant of a sliver is pushed away from zero to this, and an edge's squared length.
_SMALLEST_DETERMINANT = 1e-10
_SMALLEST_LENGTH = 1e-20
# Barycentric weights are clipped to [_CLIP, 1 - _CLIP]: at 0 and 1 a texel look-up ties or leaves
# the face.
_CLIP = 1e-5

Triple = tuple[Array, ...]  # one of each corner or edge
Offsets = Array | np.ndarray  # [1, 16]


class Edges(NamedTuple):
  """The edges of each row's face, edge i from corner i to corner i + 1; [R, 1] each."""

  x: Triple
  y: Triple
  length: Triple  # squared
  side: Float[Array, "R 1"]  # the sign of the determinant
  inverse_determinant: Float[Array, "R 1"]


class Nearest(NamedTuple):
  """The point of a triangle's outline nearest to each pixel."""

  squared: Float[Array, "R 16"]  # distance, squared, in image-space units
  place: Float[Array, "R 16"]  # 2 (edge - 1) plus how far along the edge, 0..1


def edges_of(rows: Rows) -> Edges:
  """The edges of the rows' faces, whose corners are stored as tile - corner."""
  x = tuple(rows.x[i] - rows.x[(i + 1) % 3] for i in range(3))
  y = tuple(rows.y[i] - rows.y[(i + 1) % 3] for i in range(3))
  length = tuple(jnp.maximum(x[i] * x[i] + y[i] * y[i], _SMALLEST_LENGTH) for i in range(3))
  determinant = x[0] * y[1] - y[0] * x[1]
  side = jnp.where(determinant < 0.0, -1.0, 1.0)
  inverse = side / jnp.maximum(jnp.abs(determinant), _SMALLEST_DETERMINANT)
  return Edges(x, y, length, side, inverse)


def crosses(rows: Rows, edges: Edges, dx: Offsets, dy: Offsets) -> Triple:
  """Twice the signed areas that the pixel spans with edges 0, 1, 2."""
  return tuple(edges.x[i] * (rows.y[i] + dy) - edges.y[i] * (rows.x[i] + dx) for i in range(3))


def strictly_inside(cross: Triple, edges: Edges) -> Bool[Array, "R 16"]:
  """True where a pixel's barycentric weights are all positive."""
  a, b, c = (value * edges.side for value in cross)
  return jnp.minimum(jnp.minimum(a, b), c) > 0.0


def locate_nearest(rows: Rows, edges: Edges, dx: Offsets, dy: Offsets) -> Nearest:
  """Finds the nearest point of the outline: of three segments, the nearest.

  The edge is chosen once, and everything else follows the choice: at a corner two edges tie, and a
  second comparison, compiled differently, could choose the other one.
  """
  best: tuple[Array, ...] = ()
  for i in range(3):
    px, py = rows.x[i] + dx, rows.y[i] + dy
    reached = jnp.clip(px * edges.x[i] + py * edges.y[i], 0.0, edges.length[i])
    along = reached * (1.0 / edges.length[i])
    x, y = along * edges.x[i] - px, along * edges.y[i] - py
    here = (x * x + y * y, reached + 2.0 * (i - 1) * edges.length[i], edges.length[i])
    if i == 0:
      best = here
    else:
      nearer = here[0] < best[0]
      best = tuple(jnp.where(nearer, new, old) for new, old in zip(here, best, strict=True))
  return Nearest(best[0], best[1] / best[2])


class Gap(NamedTuple):
  """From each pixel to the nearest point of the outline, and whose that point is."""

  x: Float[Array, "R 16"]
  y: Float[Array, "R 16"]
  shares: Triple  # weights of the point in the corners


def gap_to(rows: Rows, edges: Edges, dx: Offsets, dy: Offsets, place: Array) -> Gap:
  """Looks up the edge again that `locate_nearest` found."""
  first, last = place < -0.5, place > 1.5

  def of_edge(values: Triple) -> Array:
    return jnp.where(first, values[0], jnp.where(last, values[2], values[1]))

  along = of_edge((place + 2.0, place, place - 2.0))
  rest = 1.0 - along
  x = along * of_edge(edges.x) - (of_edge(rows.x) + dx)
  y = along * of_edge(edges.y) - (of_edge(rows.y) + dy)
  zero = jnp.zeros_like(along)
  shares = (
    of_edge((rest, zero, along)),
    of_edge((along, rest, zero)),
    of_edge((zero, along, rest)),
  )
  return Gap(x, y, shares)


def barycentric(cross: Triple, edges: Edges) -> Triple:
  """The pixel's affine weights of the three corners, unclipped."""
  return tuple(cross[(i + 1) % 3] * edges.inverse_determinant for i in range(3))


def clipped(weights: Triple) -> Triple:
  """Weights clipped to the triangle and normalised."""
  w = tuple(jnp.clip(value, _CLIP, 1.0 - _CLIP) for value in weights)
  total = w[0] + w[1] + w[2]
  return tuple(value / total for value in w)


def inverse_depth_at(weights: Triple, rows: Rows) -> Float[Array, "R 16"]:
  """One over the depth of the face at each pixel; depth is interpolated perspectively."""
  a, b, c = (w * inverse for w, inverse in zip(weights, rows.inverse_depth, strict=True))
  return a + b + c


def signed_distance(
  rows: Rows, edges: Edges, dx: Offsets, dy: Offsets, *, dist_func: str, reach: Array
) -> tuple[Float[Array, "R 16"], Bool[Array, "R 16"]]:
  """SoftRas's signed distance to a face, positive inside, and where the face is felt at all.

  Args:
    rows: the faces and tiles.
    edges: of these rows.
    dx: offsets of a tile's pixels.
    dy: offsets of a tile's pixels.
    dist_func: "euclidean", the squared distance in image space to the outline, or "barycentric",
      the square of the least weight.
    reach: the square root of the value at which SoftRas stops looking outside the face.
  """
  cross = crosses(rows, edges, dx, dy)
  inside = strictly_inside(cross, edges)
  if dist_func == "euclidean":
    squared = locate_nearest(rows, edges, dx, dy).squared
    near = inside | (squared < reach * reach)
  else:
    a, b, c = barycentric(cross, edges)
    least = jnp.minimum(jnp.minimum(a, b), c)
    squared = least * least
    near = inside | ((squared < reach * reach) & in_box(rows, dx, dy, reach))
  return jnp.where(inside, squared, -squared), near & rows.active


def in_box(rows: Rows, dx: Offsets, dy: Offsets, reach: Array) -> Bool[Array, "R 16"]:
  """True for pixels in the bounding box of a face grown by `reach`."""
  result = rows.active
  for corner, offset in ((rows.x, dx), (rows.y, dy)):
    # tile - corner is largest for the least corner.
    most = jnp.maximum(jnp.maximum(corner[0], corner[1]), corner[2]) + offset
    least = jnp.minimum(jnp.minimum(corner[0], corner[1]), corner[2]) + offset
    result = result & (least <= reach) & (most >= -reach)
  return result


def corner_gradients(
  rows: Rows, edges: Edges, dx: Offsets, dy: Offsets, slope: Array, *, dist_func: str
) -> tuple[Float[Array, "R"], ...]:
  """Pulls a gradient on the squared distance back to the corners, summed over each row's pixels.

  Args:
    rows: the faces and tiles.
    edges: of these rows.
    dx: offsets of a tile's pixels.
    dy: offsets of a tile's pixels.
    slope: the gradient on the distance, squared, without its sign; zero where it is not felt.
    dist_func: see `signed_distance`.

  Returns:
    x0 y0 x1 y1 x2 y2 of the gradient on the corners.
  """
  if dist_func == "barycentric":
    return _barycentric_gradients(rows, edges, dx, dy, slope)
  # d(squared)/d(corner) = 2 (q - p) b, with b the weights of the nearest point q in its edge.
  gap = gap_to(rows, edges, dx, dy, locate_nearest(rows, edges, dx, dy).place)
  sums = []
  for share in gap.shares:
    pull = 2.0 * slope * share
    sums += [jnp.sum(pull * gap.x, axis=-1), jnp.sum(pull * gap.y, axis=-1)]
  return tuple(sums)


def _barycentric_gradients(
  rows: Rows, edges: Edges, dx: Offsets, dy: Offsets, slope: Array
) -> tuple[Float[Array, "R"], ...]:
  """`corner_gradients` of m^2, with m the least weight.

  Moving corner j is as moving the pixel against it, weighted by w_j: dw_k/dv_j = -w_j dw_k/dp.
  """
  weights = barycentric(crosses(rows, edges, dx, dy), edges)
  least, argument = weights[0], jnp.zeros(slope.shape, jnp.int32)
  for k in (1, 2):
    argument = jnp.where(weights[k] < least, k, argument)
    least = jnp.minimum(least, weights[k])
  # The weight of corner k falls off across the opposite edge, k + 1.
  across_x = jnp.where(argument == 0, edges.y[1], jnp.where(argument == 1, edges.y[2], edges.y[0]))
  across_y = jnp.where(argument == 0, edges.x[1], jnp.where(argument == 1, edges.x[2], edges.x[0]))
  force = 2.0 * least * slope * edges.inverse_determinant
  sums = []
  for weight in weights:
    # Far from a sliver weights are huge, and huge times zero need not be zero.
    pull = jnp.where(slope == 0.0, 0.0, force * weight)
    sums += [jnp.sum(pull * across_x, axis=-1), jnp.sum(-pull * across_y, axis=-1)]
  return tuple(sums)
