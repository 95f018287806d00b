"""The distance of SoftRas for one (pixel, face) pair, on rows of (face, tile).

Everything is computed from the tile's corner relative to the face's corners, never from absolute
positions: the signed distance is a difference of products, and dividing it by sigma multiplies
rounding errors by up to 1 / sigma.

On speed: XLA fuses cheap operations into all of their consumers, which then repeat them, but it
computes a division or an exponential once and stores it. What many consumers need is therefore
made to pass through one, masks included (`locate_nearest`, and `Pairs` in `pairs`).

Source: Liu et al. 2019, "Soft Rasterizer", section 3.2.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from umr_jax.render.barycentric import barycentric
from umr_jax.render.rows import Rows, Triple

# Of a float32 computation with a few steps, relative to its largest number.
_ROUNDING = 1e-6
# Lengths are not divided by below this.
_SHORTEST = 1e-10

Offsets = Array | np.ndarray  # [1, 16]


class Edges(NamedTuple):
  """The edges of each row's face, edge i from corner i to corner i + 1; [R, 1] each."""

  normal_x: Triple  # unit vectors across the edges, to the inside
  normal_y: Triple
  side: Float[Array, "R 1"]  # the sign of the determinant
  # A pixel is inside where it is farther than this from every edge's line: 0, or infinite for a
  # face with an edge of no length, which has no inside.
  threshold: Float[Array, "R 1"]


class Nearest(NamedTuple):
  """The point of a triangle's outline nearest to each pixel."""

  squared: Float[Array, "R 16"]  # distance, squared, in image-space units
  place: Float[Array, "R 16"]  # 2 (edge - 1) plus how far along the edge, 0..1


def edges_of(rows: Rows) -> Edges:
  """The edges' normals, and which side of them is the inside."""
  side = jnp.where(rows.inverse_determinant < 0.0, -1.0, 1.0)
  shortest = jnp.minimum(jnp.minimum(rows.length[0], rows.length[1]), rows.length[2])
  return Edges(
    normal_x=tuple(-side * y for y in rows.along_y),
    normal_y=tuple(side * x for x in rows.along_x),
    side=side,
    threshold=jnp.where(shortest > 0.0, 0.0, jnp.inf),
  )


def edge_distances(rows: Rows, edges: Edges, dx: Offsets, dy: Offsets) -> Triple:
  """Signed distances of the pixels to the lines of edges 0, 1, 2, positive to the inside.

  Args:
    rows: the faces and tiles.
    edges: of these rows.
    dx: offsets of a tile's pixels.
    dy: offsets of a tile's pixels.
  """
  return tuple(
    edges.normal_x[i] * (rows.x[i] + dx) + edges.normal_y[i] * (rows.y[i] + dy) for i in range(3)
  )


def strictly_inside(distances: Triple, edges: Edges) -> Bool[Array, "R 16"]:
  """True where a pixel's barycentric weights are all positive.

  Args:
    distances: from the lines of the three edges.
    edges: of these rows.
  """
  return jnp.minimum(jnp.minimum(distances[0], distances[1]), distances[2]) > edges.threshold


def locate_nearest(rows: Rows, edges: Edges, dx: Offsets, dy: Offsets) -> Nearest:
  """Finds the nearest point of the outline: of three segments, the nearest.

  The edge is chosen once, and everything else follows the choice: at a corner two edges tie, and a
  second comparison, compiled differently, could choose the other one.

  Args:
    rows: the faces and tiles.
    edges: of these rows.
    dx: offsets of a tile's pixels.
    dy: offsets of a tile's pixels.
  """
  best: tuple[Array, ...] = ()
  distances = edge_distances(rows, edges, dx, dy)
  for i in range(3):
    # In the edge's own frame: how far along it the pixel lies, and how far beyond its ends.
    along = rows.along_x[i] * (rows.x[i] + dx) + rows.along_y[i] * (rows.y[i] + dy)
    reached = jnp.clip(along, 0.0, rows.length[i])
    beyond = along - reached
    length = jnp.maximum(rows.length[i], _SHORTEST)
    here = (
      distances[i] * distances[i] + beyond * beyond,
      reached + 2.0 * (i - 1) * length,
      length,
    )
    if i == 0:
      best = here
    else:
      nearer = here[0] < best[0]
      best = tuple(jnp.where(nearer, new, old) for new, old in zip(here, best, strict=True))
  return Nearest(best[0], best[1] / best[2])


class ClosestPoint(NamedTuple):
  """The nearest point of the outline to each pixel, relative to the pixel."""

  x: Float[Array, "R 16"]
  y: Float[Array, "R 16"]
  weights: Triple  # barycentric, of the point


def closest_point(rows: Rows, dx: Offsets, dy: Offsets, place: Array) -> ClosestPoint:
  """The point that `locate_nearest` found, from its place on the outline.

  Args:
    rows: the faces and tiles.
    dx: offsets of a tile's pixels.
    dy: offsets of a tile's pixels.
    place: of the nearest point on the outline; see `Nearest`.
  """
  first, last = place < -0.5, place > 1.5

  def of_edge(values: Triple) -> Array:
    return jnp.where(first, values[0], jnp.where(last, values[2], values[1]))

  along = of_edge((place + 2.0, place, place - 2.0))
  rest = 1.0 - along
  reached = along * of_edge(rows.length)
  x = reached * of_edge(rows.along_x) - (of_edge(rows.x) + dx)
  y = reached * of_edge(rows.along_y) - (of_edge(rows.y) + dy)
  zero = jnp.zeros_like(along)
  weights = (
    of_edge((rest, zero, along)),
    of_edge((along, rest, zero)),
    of_edge((zero, along, rest)),
  )
  return ClosestPoint(x, y, weights)


def may_intersect(
  rows: Rows, edges: Edges, dx: Offsets, dy: Offsets, radius: Array
) -> Bool[Array, "R 1"]:
  """False for rows whose tile lies wholly beyond one of the edges, farther than `radius`.

  Args:
    rows: the faces and tiles.
    edges: of these rows.
    dx: offsets of a tile's pixels.
    dy: offsets of a tile's pixels.
    radius: the blur radius, in image-space units.
  """
  middle_x, middle_y = dx[:, -1:] * 0.5, dy[:, -1:] * 0.5
  # Of a sliver, rounding may have turned the inside out.
  area = rows.length[0] * rows.length[1] * jnp.abs(rows.inverse_determinant)
  sliver = area >= 1.0 / _ROUNDING
  result = rows.active
  for i, distances in enumerate(edge_distances(rows, edges, middle_x, middle_y)):
    # The tile's pixel that lies farthest to the inside.
    most = distances + jnp.abs(edges.normal_x[i]) * middle_x + jnp.abs(edges.normal_y[i]) * middle_y
    rounding = _ROUNDING * (jnp.abs(rows.x[i]) + jnp.abs(rows.y[i]) + rows.length[i])
    # The line through an edge of no length is none.
    result = result & ((most >= -(radius + rounding)) | (rows.length[i] == 0.0) | sliver)
  return result


def signed_distance(
  rows: Rows,
  edges: Edges,
  dx: Offsets,
  dy: Offsets,
  *,
  dist_func: str,
  radius: Array,
  closest: ClosestPoint | None = None,
) -> tuple[Float[Array, "R 16"], Bool[Array, "R 16"]]:
  """SoftRas's signed distance to a face, positive inside, and which pixels its support holds.

  Args:
    rows: the faces and tiles.
    edges: of these rows.
    dx: offsets of a tile's pixels.
    dy: offsets of a tile's pixels.
    dist_func: "euclidean", the squared distance in image space to the outline, or "barycentric",
      the square of the least weight.
    radius: the blur radius: the square root of the value from which on SoftRas ignores the face.
    closest: the nearest points of the outlines, if they are known: it saves another search.
  """
  distances = edge_distances(rows, edges, dx, dy)
  inside = strictly_inside(distances, edges)
  if dist_func == "euclidean":
    if closest is None:
      squared = locate_nearest(rows, edges, dx, dy).squared
    else:
      squared = closest.x * closest.x + closest.y * closest.y
    near = inside | (squared < radius * radius)
  else:
    a, b, c = barycentric(distances, rows)
    least = jnp.minimum(jnp.minimum(a, b), c)
    squared = least * least
    near = inside | ((squared < radius * radius) & in_box(rows, dx, dy, radius))
  return jnp.where(inside, squared, -squared), near & rows.active


def in_box(rows: Rows, dx: Offsets, dy: Offsets, radius: Array) -> Bool[Array, "R 16"]:
  """True for pixels in the bounding box of a face grown by `radius`.

  Args:
    rows: the faces and tiles.
    dx: offsets of a tile's pixels.
    dy: offsets of a tile's pixels.
    radius: the blur radius, in image-space units.
  """
  result = rows.active
  for corner, offset in ((rows.x, dx), (rows.y, dy)):
    # tile - corner is largest for the least corner.
    most = jnp.maximum(jnp.maximum(corner[0], corner[1]), corner[2]) + offset
    least = jnp.minimum(jnp.minimum(corner[0], corner[1]), corner[2]) + offset
    result = result & (least <= radius) & (most >= -radius)
  return result


def corner_gradients(
  rows: Rows, edges: Edges, dx: Offsets, dy: Offsets, cotangent: Array, closest: ClosestPoint | None
) -> tuple[Float[Array, "R"], ...]:
  """Backpropagates from the squared distance to the corners, summed over each row's pixels.

  Args:
    rows: the faces and tiles.
    edges: of these rows.
    dx: offsets of a tile's pixels.
    dy: offsets of a tile's pixels.
    cotangent: the gradient on the squared distance without its sign; zero outside the support.
    closest: the nearest points of the outlines; None stands for the barycentric distance.

  Returns:
    x0 y0 x1 y1 x2 y2 of the gradient on the corners.
  """
  if closest is None:
    return _barycentric_gradients(rows, edges, dx, dy, cotangent)
  # d(squared)/d(corner) = 2 (q - p) b, with b the weights of the nearest point q in its edge.
  sums = []
  for weight in closest.weights:
    weighted = 2.0 * cotangent * weight
    sums += [jnp.sum(weighted * closest.x, axis=-1), jnp.sum(weighted * closest.y, axis=-1)]
  return tuple(sums)


def _barycentric_gradients(
  rows: Rows, edges: Edges, dx: Offsets, dy: Offsets, cotangent: Array
) -> tuple[Float[Array, "R"], ...]:
  """`corner_gradients` of m^2, with m the least weight.

  Moving corner j is as moving the pixel against it, weighted by w_j: dw_k/dv_j = -w_j dw_k/dp.
  """
  weights = barycentric(edge_distances(rows, edges, dx, dy), rows)
  least, argument = weights[0], jnp.zeros(cotangent.shape, jnp.int32)
  for k in (1, 2):
    argument = jnp.where(weights[k] < least, k, argument)
    least = jnp.minimum(least, weights[k])
  # The weight of corner k falls off across the opposite edge, k + 1.
  x, y = (
    tuple(length * part for length, part in zip(rows.length, along, strict=True))
    for along in (rows.along_x, rows.along_y)
  )
  across_x = jnp.where(argument == 0, y[1], jnp.where(argument == 1, y[2], y[0]))
  across_y = jnp.where(argument == 0, x[1], jnp.where(argument == 1, x[2], x[0]))
  force = 2.0 * least * cotangent * rows.inverse_determinant
  sums = []
  for weight in weights:
    # Far from a sliver weights are huge, and huge times zero need not be zero.
    weighted = jnp.where(cotangent == 0.0, 0.0, force * weight)
    sums += [jnp.sum(weighted * across_x, axis=-1), jnp.sum(-weighted * across_y, axis=-1)]
  return tuple(sums)
