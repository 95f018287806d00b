"""What a face and a pixel are to each other: coverage, barycentric weights and depth.

Source: Liu et al. 2019, "Soft Rasterizer", section 3.3.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from umr_jax.render import distance
from umr_jax.render.barycentric import barycentric, clip_weights, depth_at
from umr_jax.render.binning import Grid, pixel_offsets
from umr_jax.render.rows import Rows, Triple

# A pixel on a face's border is on the face. Two faces that share an edge may each round it away.
_BORDER = 1e-6


class BlendParams(NamedTuple):
  """The parameters that may be traced; everything else is in `Settings`."""

  sigma: Float[Array, ""]
  gamma: Float[Array, ""]
  background: Float[Array, "C"]


class Settings(NamedTuple):
  """What a compiled rasterizer is specialised to."""

  grid: Grid
  dist_func: str = "euclidean"
  dist_eps: float = 1e-4
  aggr_rgb: str = "softmax"
  aggr_alpha: str = "prod"
  texture_type: str = "surface"
  near: float = 1.0
  far: float = 100.0
  eps: float = 1e-3
  double_sided: bool = True
  fragments: bool = False
  geometry_channels: tuple[bool, ...] | None = None  # None: all

  @property
  def farthest(self) -> float:
    """The depth at which the running maximum of SoftRas starts."""
    return self.far - self.eps * (self.far - self.near)


class Pairs(NamedTuple):
  """A chunk of rows against the 16 pixels of their tiles; [R, 16] each."""

  signed: Float[Array, "R 16"]  # signed distance over sigma
  in_support: Bool[Array, "R 16"]  # counts for alpha
  in_range: Bool[Array, "R 16"]  # and lies between near and far
  not_culled: Bool[Array, "R 16"]  # lies between near and far, and its side is rendered
  blended: Bool[Array, "R 16"]  # in support and not culled: counts for colour
  hit: Bool[Array, "R 16"]  # and the pixel is on the face, borders included
  weights: Triple  # clipped barycentric
  depth: Float[Array, "R 16"]


def blur_radius(sigma: Array, dist_eps: float) -> Array:
  """The distance from a face, in image-space units, at which D falls to dist_eps.

  It bounds the face's support. PyTorch3D's option of this name is its square.

  Args:
    sigma: softness of outlines.
    dist_eps: the least D.
  """
  return jnp.sqrt(sigma * np.float32(np.log(1.0 / dist_eps - 1.0)))


def pairs_of(
  rows: Rows,
  settings: Settings,
  sigma: Array,
  radius: Array,
  closest: distance.ClosestPoint | None = None,
) -> Pairs:
  """Evaluates everything that alpha and colour need. What is not used costs nothing once jitted.

  Args:
    rows: the faces and tiles.
    settings: of the rasterizer.
    sigma: softness of outlines.
    radius: the `blur_radius`.
    closest: the nearest points of the outlines, where they are known.
  """
  dx, dy = pixel_offsets(settings.grid)
  edges = distance.edges_of(rows)
  squared, in_support = distance.signed_distance(
    rows, edges, dx, dy, dist_func=settings.dist_func, radius=radius, closest=closest
  )
  raw = barycentric(distance.edge_distances(rows, edges, dx, dy), rows)
  clipped, total = clip_weights(raw)
  weights = tuple(value / total for value in clipped)
  depth = depth_at(clipped, total, rows)
  in_range = (depth >= settings.near) & (depth <= settings.far)
  not_culled = in_range if settings.double_sided else in_range & (edges.side > 0.0)
  blended = in_support & not_culled
  least = jnp.minimum(jnp.minimum(raw[0], raw[1]), raw[2])
  hit = blended & (least >= -_BORDER)
  return Pairs(
    squared / sigma, in_support, in_support & in_range, not_culled, blended, hit, weights, depth
  )


def inverse_odds(pairs: Pairs, counted: Array) -> Float[Array, "R 16"]:
  """(1 - D) / D, infinite where a pair is not counted; see `coverage`.

  Args:
    pairs: rows of faces against pixels.
    counted: the pairs to count.
  """
  return jnp.exp(jnp.where(counted, -pairs.signed, jnp.inf))


def coverage(inv_odds: Array) -> Float[Array, "R 16"]:
  """D, from its `inverse_odds`; exactly zero where these are infinite."""
  return 1.0 / (1.0 + inv_odds)


def rows_in_support(settings: Settings, radius: Array) -> Callable[[Rows], Bool[Array, "R"]]:
  """Which rows may hold a pixel within the support of their face.

  Args:
    settings: of the rasterizer.
    radius: the blur radius, in image-space units.
  """
  dx, dy = pixel_offsets(settings.grid)

  def keep(rows: Rows) -> Bool[Array, "R"]:
    if settings.dist_func != "euclidean":
      return rows.active[:, 0]
    return distance.may_intersect(rows, distance.edges_of(rows), dx, dy, radius)[:, 0]

  return keep
