"""Cameras from where the parts lie: factorisation, as others do it with keypoints.

Each part of a category has a centre, and a photograph shows where some of the centres come to lie.
The centres and the views that explain all photographs at once are found in turns: the best of many
views for each photograph, and the least squares' centres for these. No shape is needed, and no
silhouette: what is asked of the photographs is that the things in them stand upright.

Source: Kanazawa et al. 2018, section 3.2, initialise cameras from keypoints by factorisation
  (Tomasi and Kanade 1992). Departs: parts in place of keypoints; a part in a pair has its centre in
  the mirror plane, where a factorisation by itself does not tell two views apart: hence the views,
  whose elevation is bounded.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from umr_jax.geometry import quaternion
from umr_jax.types import checked

_STARTS, _TURNS = 12, 25
# No view shrinks the centres to less than this share of their size.
_LEAST_SCALE = 0.2
# Of a part that few photographs show: keeps its centre where the others are.
_PRIOR = 1e-3
# A photograph shows a part if it has so many pixels.
_LEAST_PIXELS = 4.0
# Small scales are of views from the side, which show an object's whole length; the smallest are of
# views that are wrong. This share of all is smaller than 1.
_SIDE = 0.3


class Layout(NamedTuple):
  """Where parts are seen."""

  points: Float[Array, "N P 2"]  # the centre of each part, x right, y down, in [-1, 1]
  weights: Float[Array, "N P"]  # by their areas; each photograph's sum to 1


class _Found(NamedTuple):
  error: Float[Array, ""]
  centers: Float[Array, "P 3"]
  scale: Float[Array, "N"]
  rotations: Float[Array, "N 4"]


@checked
def part_layout(parts: Float[Array, "N S S P"]) -> Layout:
  """The centres of the parts that photographs show.

  Args:
    parts: part maps without background, zero outside of the silhouette.
  """
  size = parts.shape[1]
  across = (2.0 * jnp.arange(size, dtype=parts.dtype) + 1.0) / size - 1.0
  area = jnp.sum(parts, axis=(1, 2))
  x, y = jnp.einsum("nhwp,w->np", parts, across), jnp.einsum("nhwp,h->np", parts, across)
  points = jnp.stack([x, y], axis=-1) / jnp.maximum(area, 1e-6)[..., None]
  shown = jnp.where(area > _LEAST_PIXELS, area, 0.0)
  return Layout(points, shown / jnp.maximum(jnp.sum(shown, axis=1, keepdims=True), 1e-6))


@checked
def layout_cameras(
  layout: Layout, rotations: Float[Array, "K 4"], *, key: PRNGKeyArray
) -> Float[Array, "N 7"]:
  """A camera for each photograph, of an object whose mirror plane is y = 0.

  The object is about as large as in a first template: from the side the scale is about 1.

  Args:
    layout: of all photographs.
    rotations: the views among which cameras are found; from all around, the object upright.
    key: of the centres with which the search begins, several times; the best end is taken.
  """
  starts = jax.random.normal(key, (_STARTS, layout.points.shape[1], 3))
  found = jax.lax.map(functools.partial(_factorize, layout, rotations), starts)
  best = jax.tree.map(lambda leaf: leaf[jnp.argmin(found.error)], found)
  # Azimuths count from anywhere so far: the centres, which lie in the mirror plane, from now on.
  angle = 0.5 * jnp.arctan2(
    2.0 * jnp.sum(best.centers[:, 0] * best.centers[:, 1]),
    jnp.sum(jnp.square(best.centers[:, 0]) - jnp.square(best.centers[:, 1])),
  )
  vertical = jnp.array([[0.0, 0.0, 1.0]])
  turn = quaternion.from_axis_angle(vertical, angle[None])
  views = quaternion.multiply(best.rotations, jnp.broadcast_to(turn, best.rotations.shape))
  unit = jnp.quantile(best.scale, _SIDE)
  scale = best.scale / unit
  centers = unit * quaternion.rotate(best.centers[None], quaternion.conjugate(turn))[0]
  centers *= jnp.array([[1.0, 0.0, 1.0]])
  # A photograph's middle is its object's: that is the origin, in the least squares' sense.
  drawn = scale[:, None, None] * quaternion.to_matrix(views)[:, :2]
  offset = _middle(layout.points - jnp.einsum("nij,pj->npi", drawn, centers), layout.weights)
  origin = jnp.linalg.solve(
    jnp.einsum("nij,nik->jk", drawn, drawn) + _PRIOR * jnp.eye(3),
    -jnp.einsum("nij,ni->j", drawn, offset),
  ) * jnp.array([1.0, 0.0, 1.0])
  place = offset + jnp.einsum("nij,j->ni", drawn, origin)
  return jnp.concatenate([scale[:, None], place, views], axis=-1)


def _factorize(
  layout: Layout, rotations: Float[Array, "K 4"], centers: Float[Array, "P 3"]
) -> _Found:
  """Views and centres in turns, from centres anywhere."""
  points, weights = layout
  rows = quaternion.to_matrix(rotations)[:, :2]
  middle = _middle(points, weights)
  around = points - middle[:, None]
  spread = jnp.einsum("np,npi->n", weights, jnp.square(around))

  def turn(_: int, found: _Found) -> _Found:
    seen = jnp.einsum("kij,pj->kpi", rows, found.centers)
    means = jnp.einsum("np,kpi->nki", weights, seen)
    product = jnp.einsum("np,npi,kpi->nk", weights, around, seen)
    squares = jnp.einsum("np,kpi->nk", weights, jnp.square(seen))
    squares -= jnp.sum(jnp.square(means), axis=-1)
    scales = jnp.maximum(product / jnp.maximum(squares, 1e-9), _LEAST_SCALE)
    errors = spread[:, None] - 2.0 * scales * product + jnp.square(scales) * squares
    view = jnp.argmin(errors, axis=1)[:, None]
    scale, mean = jnp.take_along_axis(scales, view, 1), means[jnp.arange(len(view)), view[:, 0]]
    drawn = scale[..., None] * rows[view[:, 0]]
    place = middle - scale * mean
    centers = jnp.linalg.solve(
      jnp.einsum("np,nij,nik->pjk", weights, drawn, drawn) + _PRIOR * jnp.eye(3)[None],
      jnp.einsum("np,nij,npi->pj", weights, drawn, points - place[:, None])[..., None],
    )[..., 0]
    centers -= jnp.mean(centers, axis=0, keepdims=True)
    error = jnp.mean(jnp.take_along_axis(errors, view, 1))
    return _Found(
      error, centers / _size(centers), scale[:, 0] * _size(centers), rotations[view[:, 0]]
    )

  count = len(points)
  begin = _Found(
    jnp.float32(0.0), centers / _size(centers), jnp.ones(count), jnp.tile(rotations[:1], (count, 1))
  )
  return jax.lax.fori_loop(0, _TURNS, turn, begin)


def _middle(points: Float[Array, "N P 2"], weights: Float[Array, "N P"]) -> Float[Array, "N 2"]:
  return jnp.einsum("np,npi->ni", weights, points)


def _size(centers: Float[Array, "P 3"]) -> Float[Array, ""]:
  return jnp.sqrt(jnp.mean(jnp.sum(jnp.square(centers), axis=-1)))
