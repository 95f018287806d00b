"""The formulae of SoftRas for one (pixel, face) pair, on rows of (face, tile).

Everything is computed from the tile's corner relative to the face's corners, never from absolute
positions: the signed distance is a difference of products, and dividing it by sigma multiplies
rounding errors by up to 1 / sigma.

Source: Liu et al. 2019, "Soft Rasterizer", sections 3.2 and 3.3; with the clipping of barycentric
weights of the kernel that UMR was trained with.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from umr_jax.render.binning import Rows

# The determinant of a sliver is pushed away from zero to this, and an edge's squared length.
_SMALLEST_DETERMINANT = 1e-10
_SMALLEST_LENGTH = 1e-20
# Barycentric weights are clipped to [_CLIP, 1 - _CLIP]: at 0 and 1 a texel look-up ties or leaves
# the face.
_CLIP = 1e-5

Triple = tuple[Array, Array, Array]


class Edges(NamedTuple):
  """The edges of each row's face, edge i from corner i to corner i + 1; [R, 1] each."""

  x: Triple
  y: Triple
  inverse_length: Triple  # of the squared length
  side: Float[Array, "R 1"]  # the sign of the determinant
  inverse_determinant: Float[Array, "R 1"]


class Nearest(NamedTuple):
  """The point of a triangle's outline nearest to each pixel."""

  squared: Float[Array, "R 16"]  # distance, squared, in image-space units
  edge: Int[Array, "R 16"]  # which edge it is on
  along: Float[Array, "R 16"]  # how far along the edge, 0..1
  x: Float[Array, "R 16"]  # from the pixel to the point
  y: Float[Array, "R 16"]


def edges_of(rows: Rows) -> Edges:
  """The edges of the rows' faces, whose corners are stored as tile - corner."""
  x = tuple(rows.x[i] - rows.x[(i + 1) % 3] for i in range(3))
  y = tuple(rows.y[i] - rows.y[(i + 1) % 3] for i in range(3))
  inverse_length = tuple(
    1.0 / jnp.maximum(x[i] * x[i] + y[i] * y[i], _SMALLEST_LENGTH) for i in range(3)
  )
  determinant = x[0] * y[1] - y[0] * x[1]
  side = jnp.where(determinant < 0.0, -1.0, 1.0)
  inverse = side / jnp.maximum(jnp.abs(determinant), _SMALLEST_DETERMINANT)
  return Edges(x, y, inverse_length, side, inverse)


def crosses(rows: Rows, edges: Edges, dx: Array, dy: Array) -> Triple:
  """Twice the signed areas that the pixel spans with edges 0, 1, 2."""
  return tuple(edges.x[i] * (rows.y[i] + dy) - edges.y[i] * (rows.x[i] + dx) for i in range(3))


def strictly_inside(cross: Triple, edges: Edges) -> Bool[Array, "R 16"]:
  """True where a pixel's barycentric weights are all positive."""
  a, b, c = (value * edges.side for value in cross)
  return jnp.minimum(jnp.minimum(a, b), c) > 0.0


def nearest_point(rows: Rows, edges: Edges, dx: Array, dy: Array) -> Nearest:
  """The nearest point of the outline: of three segments, the nearest.

  Edges are chosen once, and everything else follows the choice: at a corner two edges tie, and a
  second comparison, compiled differently, could choose the other one.
  """
  found = []
  for i in range(3):
    px, py = rows.x[i] + dx, rows.y[i] + dy
    along = (px * edges.x[i] + py * edges.y[i]) * edges.inverse_length[i]
    along = jnp.clip(along, 0.0, 1.0)
    x, y = along * edges.x[i] - px, along * edges.y[i] - py
    found.append((x * x + y * y, along, x, y))
  best = found[0]
  edge = jnp.zeros(best[0].shape, jnp.int32)
  for i in (1, 2):
    nearer = found[i][0] < best[0]
    edge = jnp.where(nearer, i, edge)
    best = tuple(jnp.where(nearer, new, old) for new, old in zip(found[i], best, strict=True))
  return Nearest(best[0], edge, best[1], best[2], best[3])


def barycentric(cross: Triple, edges: Edges) -> Triple:
  """The pixel's affine weights of the three corners, unclipped."""
  return tuple(cross[(i + 1) % 3] * edges.inverse_determinant for i in range(3))


def clipped(weights: Triple) -> Triple:
  """Weights clipped to the triangle and normalised."""
  w = tuple(jnp.clip(value, _CLIP, 1.0 - _CLIP) for value in weights)
  scale = 1.0 / (w[0] + w[1] + w[2])
  return tuple(value * scale for value in w)


def depth_at(weights: Triple, rows: Rows) -> Float[Array, "R 16"]:
  """The depth of the face at each pixel, interpolated perspectively."""
  a, b, c = (w * inverse for w, inverse in zip(weights, rows.inverse_depth, strict=True))
  return 1.0 / (a + b + c)


def signed_distance(
  rows: Rows, edges: Edges, dx: Array, dy: Array, *, dist_func: str, reach: Array
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
    squared = nearest_point(rows, edges, dx, dy).squared
    near = inside | (squared < reach * reach)
  else:
    a, b, c = barycentric(cross, edges)
    least = jnp.minimum(jnp.minimum(a, b), c)
    squared = least * least
    near = inside | ((squared < reach * reach) & in_box(rows, dx, dy, reach))
  return jnp.where(inside, squared, -squared), near & rows.active


def in_box(rows: Rows, dx: Array, dy: Array, reach: Array) -> Bool[Array, "R 16"]:
  """True for pixels in the bounding box of a face grown by `reach`."""
  result = rows.active
  for corner, offset in ((rows.x, dx), (rows.y, dy)):
    # tile - corner is largest for the least corner.
    most = jnp.maximum(jnp.maximum(corner[0], corner[1]), corner[2]) + offset
    least = jnp.minimum(jnp.minimum(corner[0], corner[1]), corner[2]) + offset
    result = result & (least <= reach) & (most >= -reach)
  return result


def corner_gradients(
  rows: Rows, edges: Edges, dx: Array, dy: Array, slope: Array, *, dist_func: str
) -> tuple[Float[Array, "R"], ...]:
  """Pulls a gradient on the signed distance back to the corners, summed over each row's pixels.

  Args:
    rows: the faces and tiles.
    edges: of these rows.
    dx: offsets of a tile's pixels.
    dy: offsets of a tile's pixels.
    slope: the gradient on the signed distance; zero where the face is not felt.
    dist_func: see `signed_distance`.

  Returns:
    x0 y0 x1 y1 x2 y2 of the gradient on the corners.
  """
  if dist_func == "barycentric":
    return _barycentric_gradients(rows, edges, dx, dy, slope)
  inside = strictly_inside(crosses(rows, edges, dx, dy), edges)
  point = nearest_point(rows, edges, dx, dy)
  # d(squared)/d(corner) = 2 (q - p) b, with b the weights of q in its edge.
  force = jnp.where(inside, 2.0 * slope, -2.0 * slope)
  sums = []
  for corner in range(3):
    share = jnp.where(point.edge == corner, 1.0 - point.along, 0.0)
    share = jnp.where(point.edge == (corner + 2) % 3, point.along, share)
    pull = force * share
    sums += [jnp.sum(pull * point.x, axis=-1), jnp.sum(pull * point.y, axis=-1)]
  return tuple(sums)


def _barycentric_gradients(
  rows: Rows, edges: Edges, dx: Array, dy: Array, slope: Array
) -> tuple[Float[Array, "R"], ...]:
  """`corner_gradients` of sign(m) m^2, with m the least weight.

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
  force = 2.0 * jnp.abs(least) * slope * edges.inverse_determinant
  force = jnp.where(slope == 0.0, 0.0, force)
  sums = []
  for j in range(3):
    pull = jnp.where(slope == 0.0, 0.0, -force * weights[j])
    sums += [jnp.sum(-pull * across_x, axis=-1), jnp.sum(pull * across_y, axis=-1)]
  return tuple(sums)
