"""Which face is in front at each pixel, and where each face lands in the image.

Nothing here is differentiable: face numbers are integers, and landing places are targets.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from umr_jax.checking import checked
from umr_jax.render import aggregate, distance
from umr_jax.render.binning import PIXELS, Bins, pixel_offsets
from umr_jax.render.rows import Rows, default_chunk, over_kept_rows, rows_at_pixels

_CHUNK = 8192
# Beside a triangle by less than this a pixel may, by rounding, still be on its border.
_BESIDE = 1e-4


def nearest_faces(
  bins: Bins, settings: aggregate.Settings, sigma: Array, tiles: int
) -> tuple[Int[Array, "tiles 16"], Float[Array, "tiles 16"]]:
  """The face of smallest depth among those on which the pixel's centre lies, and the depth.

  Faces are numbered through the whole batch. Of faces at exactly one depth the first wins. Where
  there is none the number is -1 and the depth infinite.
  """
  reach = aggregate.reach_of(sigma, settings.dist_eps)
  nobody, infinite = bins.num_faces, np.float32(np.inf).view(np.int32)

  def body(rows: Rows, state: tuple[Array, Array]) -> tuple[Array, Array]:
    depth, winner = state
    pairs = aggregate.pairs_of(rows, settings, sigma, reach)
    # The same numbers must reach the minimum and the comparison with it, not two evaluations: a
    # division, mask included, is computed once.
    mine = distance.as_integers(1.0 / jnp.where(pairs.hit, 1.0 / pairs.depth, 0.0))
    before = depth.at[rows.tile].get(mode="clip")
    depth = depth.at[rows.tile].min(mine, mode="drop")
    after = depth.at[rows.tile].get(mode="clip")
    # A pixel that found a nearer face forgets its winner. Rows on one tile write the same.
    kept = winner.at[rows.tile].get(mode="clip")
    winner = winner.at[rows.tile].set(jnp.where(after < before, nobody, kept), mode="drop")
    claim = jnp.where((mine <= after) & (mine < infinite), rows.face[:, None], nobody)
    return depth, winner.at[rows.tile].min(claim, mode="drop")

  state = (
    jnp.full((tiles, PIXELS), infinite, jnp.int32),
    jnp.full((tiles, PIXELS), nobody, jnp.int32),
  )
  chunk = default_chunk(bins.num_faces, _CHUNK)
  # Only what lies on the triangle itself can hit.
  keep = aggregate.felt_rows(settings, jnp.minimum(reach, _BESIDE))
  depth, winner = over_kept_rows(bins, settings.grid, chunk, keep, body, state)
  return jnp.where(winner == nobody, -1, winner), distance.as_floats(depth)


def hard_colors(
  bins: Bins,
  textures: Float[Array, "N T C"],
  winner: Int[Array, "tiles 16"],
  settings: aggregate.Settings,
) -> Float[Array, "tiles 16 C"]:
  """The colour of the winning face at each pixel; linear in the textures. Zero where none won."""
  rows = rows_at_pixels(bins, settings.grid, winner)
  edges = distance.edges_of(rows)
  zero = jnp.zeros((1, 1), jnp.float32)
  raw = distance.barycentric(distance.heights(rows, edges, zero, zero), rows)
  clipped, total = distance.clipped(raw)
  weights = tuple(value / total for value in clipped)
  face = jnp.maximum(winner, 0)
  colors = aggregate.colors_at(face, weights, textures, settings)
  return jnp.where((winner >= 0)[..., None], colors, 0.0)


def landing_sums(
  bins: Bins,
  nearest: Float[Array, "tiles 16"],
  inverse_total: Float[Array, "tiles 16"],
  settings: aggregate.Settings,
  sigma: Array,
  gamma: Array,
) -> Float[Array, "N1 3"]:
  """Per face, the sums over pixels of W, W x and W y, with W its normalised softmax weight."""
  reach = aggregate.reach_of(sigma, settings.dist_eps)
  dx, dy = pixel_offsets(settings.grid)

  def body(rows: Rows, sums: Array) -> Array:
    pairs = aggregate.pairs_of(rows, settings, sigma, reach)
    depth = nearest.at[rows.tile].get(mode="clip")
    inverse = inverse_total.at[rows.tile].get(mode="clip")
    odds = aggregate.odds_against(pairs, pairs.shown)
    share = inverse * aggregate.softmax_weights(pairs, odds, depth, settings, gamma) / (1.0 + odds)
    total = jnp.sum(share, axis=-1, keepdims=True)
    x = rows.left * total + jnp.sum(share * dx, axis=-1, keepdims=True)
    y = rows.top * total + jnp.sum(share * dy, axis=-1, keepdims=True)
    values = jnp.concatenate([total, x, y], axis=-1)
    return sums.at[rows.face].add(values, mode="promise_in_bounds")

  chunk = default_chunk(bins.num_faces, _CHUNK)
  start = jnp.zeros((bins.num_faces + 1, 3), jnp.float32)
  keep = aggregate.visible_rows(nearest, settings, reach, gamma)
  return over_kept_rows(bins, settings.grid, chunk, keep, body, start)


def winning_sums(
  winner: Int[Array, "tiles 16"], bins: Bins, settings: aggregate.Settings
) -> Float[Array, "N1 3"]:
  """`landing_sums` where each pixel belongs wholly to the face that won it."""
  rows = rows_at_pixels(bins, settings.grid, winner)
  # Tiles may reach beyond the image.
  on_image = (rows.left < 1.0) & (rows.top < 1.0)
  won = ((winner >= 0) & on_image).astype(jnp.float32)
  values = jnp.stack([won, won * rows.left, won * rows.top], axis=-1)
  sums = jnp.zeros((bins.num_faces + 1, 3), jnp.float32)
  return sums.at[jnp.where(winner < 0, bins.num_faces, winner)].add(values)


@checked
def visible_faces(face_ids: Int[Array, "*B H W"], *, num_faces: int) -> Bool[Array, "*B F"]:
  """True for the faces that win at least one pixel of their image.

  Args:
    face_ids: the nearest face of each pixel, -1 for none.
    num_faces: F.
  """
  batch = face_ids.shape[:-2]
  flat = face_ids.reshape(-1, face_ids.shape[-2] * face_ids.shape[-1])
  image = jnp.arange(flat.shape[0], dtype=jnp.int32)[:, None]
  # Column `num_faces` collects the background.
  seen = jnp.zeros((flat.shape[0], num_faces + 1), jnp.bool_)
  seen = seen.at[image, jnp.where(flat < 0, num_faces, flat)].set(True)
  return seen[:, :num_faces].reshape(*batch, num_faces)
