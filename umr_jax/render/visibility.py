"""The nearest face at each pixel (z-buffer), and the projected centroid of each face.

Nothing here is differentiable: face numbers are integers, and projected centroids are targets.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from umr_jax.checking import checked
from umr_jax.render import distance
from umr_jax.render.aggregate import softmax_weights, visible_rows
from umr_jax.render.barycentric import as_floats, as_integers, barycentric, clip_weights
from umr_jax.render.binning import PIXELS, Bins, pixel_offsets
from umr_jax.render.pairs import (
  Settings,
  blur_radius,
  inverse_odds,
  pairs_of,
  rows_in_support,
)
from umr_jax.render.rows import Rows, default_chunk, over_kept_rows, rows_at_pixels
from umr_jax.render.textures import colors_at

_CHUNK = 8192
# Beside a triangle by less than this a pixel may, by rounding, still be on its border.
_BORDER_RADIUS = 1e-4


def nearest_faces(
  bins: Bins, settings: Settings, sigma: Array, tiles: int
) -> tuple[Int[Array, "tiles 16"], Float[Array, "tiles 16"]]:
  """The face of smallest depth among those on which the pixel's centre lies, and the depth.

  Faces are numbered through the whole batch. Of faces at exactly one depth the first is taken.
  Where there is none the number is -1 and the depth infinite.

  Args:
    bins: the faces of the batch.
    settings: of the rasterizer.
    sigma: softness of outlines.
    tiles: how many, of all images.
  """
  radius = blur_radius(sigma, settings.dist_eps)
  no_face, infinite = bins.num_faces, np.float32(np.inf).view(np.int32)

  def body(rows: Rows, state: tuple[Array, Array]) -> tuple[Array, Array]:
    depth, nearest_face = state
    pairs = pairs_of(rows, settings, sigma, radius)
    # The same numbers must reach the minimum and the comparison with it, not two evaluations: a
    # division, mask included, is computed once.
    mine = as_integers(1.0 / jnp.where(pairs.hit, 1.0 / pairs.depth, 0.0))
    before = depth.at[rows.tile].get(mode="clip")
    depth = depth.at[rows.tile].min(mine, mode="drop")
    after = depth.at[rows.tile].get(mode="clip")
    # Where a nearer face was found, the one before is dropped. Rows on one tile write the same.
    kept = nearest_face.at[rows.tile].get(mode="clip")
    nearest_face = nearest_face.at[rows.tile].set(
      jnp.where(after < before, no_face, kept), mode="drop"
    )
    claim = jnp.where((mine <= after) & (mine < infinite), rows.face[:, None], no_face)
    return depth, nearest_face.at[rows.tile].min(claim, mode="drop")

  state = (
    jnp.full((tiles, PIXELS), infinite, jnp.int32),
    jnp.full((tiles, PIXELS), no_face, jnp.int32),
  )
  chunk = default_chunk(bins.num_faces, _CHUNK)
  # Only what lies on the triangle itself can hit.
  keep = rows_in_support(settings, jnp.minimum(radius, _BORDER_RADIUS))
  depth, nearest_face = over_kept_rows(bins, settings.grid, chunk, keep, body, state)
  return jnp.where(nearest_face == no_face, -1, nearest_face), as_floats(depth)


def hard_colors(
  bins: Bins,
  textures: Float[Array, "N T C"],
  nearest_face: Int[Array, "tiles 16"],
  settings: Settings,
) -> Float[Array, "tiles 16 C"]:
  """The colour of the nearest face at each pixel, zero without one; linear in the textures.

  Args:
    bins: the faces of the batch.
    textures: of all faces.
    nearest_face: the nearest face of each pixel; negative where there is none.
    settings: of the rasterizer.
  """
  rows = rows_at_pixels(bins, settings.grid, nearest_face)
  edges = distance.edges_of(rows)
  zero = jnp.zeros((1, 1), jnp.float32)
  raw = barycentric(distance.edge_distances(rows, edges, zero, zero), rows)
  clipped, total = clip_weights(raw)
  weights = tuple(value / total for value in clipped)
  face = jnp.maximum(nearest_face, 0)
  colors = colors_at(face, weights, textures, settings)
  return jnp.where((nearest_face >= 0)[..., None], colors, 0.0)


def soft_centroid_sums(
  bins: Bins,
  nearest: Float[Array, "tiles 16"],
  inverse_total: Float[Array, "tiles 16"],
  settings: Settings,
  sigma: Array,
  gamma: Array,
) -> Float[Array, "N1 3"]:
  """Per face, the sums over pixels of W, W x and W y, with W its normalised softmax weight.

  Args:
    bins: the faces of the batch.
    nearest: the nearest depth of each pixel.
    inverse_total: one over the sum of each pixel's weights; zero beyond the image.
    settings: of the rasterizer.
    sigma: softness of outlines.
    gamma: softness of occlusion.
  """
  radius = blur_radius(sigma, settings.dist_eps)
  dx, dy = pixel_offsets(settings.grid)

  def body(rows: Rows, sums: Array) -> Array:
    pairs = pairs_of(rows, settings, sigma, radius)
    depth = nearest.at[rows.tile].get(mode="clip")
    inverse = inverse_total.at[rows.tile].get(mode="clip")
    inv_odds = inverse_odds(pairs, pairs.blended)
    share = inverse * softmax_weights(pairs, inv_odds, depth, settings, gamma) / (1.0 + inv_odds)
    total = jnp.sum(share, axis=-1, keepdims=True)
    x = rows.left * total + jnp.sum(share * dx, axis=-1, keepdims=True)
    y = rows.top * total + jnp.sum(share * dy, axis=-1, keepdims=True)
    values = jnp.concatenate([total, x, y], axis=-1)
    return sums.at[rows.face].add(values, mode="promise_in_bounds")

  chunk = default_chunk(bins.num_faces, _CHUNK)
  start = jnp.zeros((bins.num_faces + 1, 3), jnp.float32)
  keep = visible_rows(nearest, settings, radius, gamma)
  return over_kept_rows(bins, settings.grid, chunk, keep, body, start)


def hard_centroid_sums(
  nearest_face: Int[Array, "tiles 16"], bins: Bins, settings: Settings
) -> Float[Array, "N1 3"]:
  """`soft_centroid_sums` where each pixel belongs wholly to its nearest face.

  Args:
    nearest_face: the nearest face of each pixel; negative where there is none.
    bins: the faces of the batch.
    settings: of the rasterizer.
  """
  rows = rows_at_pixels(bins, settings.grid, nearest_face)
  # Tiles may reach beyond the image.
  on_image = (rows.left < 1.0) & (rows.top < 1.0)
  covered = ((nearest_face >= 0) & on_image).astype(jnp.float32)
  values = jnp.stack([covered, covered * rows.left, covered * rows.top], axis=-1)
  sums = jnp.zeros((bins.num_faces + 1, 3), jnp.float32)
  return sums.at[jnp.where(nearest_face < 0, bins.num_faces, nearest_face)].add(values)


@checked
def visible_faces(face_ids: Int[Array, "*B H W"], *, num_faces: int) -> Bool[Array, "*B F"]:
  """True for the faces that are the nearest at one pixel of their image at least.

  Args:
    face_ids: the nearest face of each pixel, -1 for none.
    num_faces: F.
  """
  batch = face_ids.shape[:-2]
  flat = face_ids.reshape(-1, face_ids.shape[-2] * face_ids.shape[-1])
  image = jnp.arange(flat.shape[0], dtype=jnp.int32)[:, None]
  # Column `num_faces` collects the background.
  visible = jnp.zeros((flat.shape[0], num_faces + 1), jnp.bool_)
  visible = visible.at[image, jnp.where(flat < 0, num_faces, flat)].set(True)
  return visible[:, :num_faces].reshape(*batch, num_faces)


@checked
def visible_vertices(
  visible: Bool[Array, "*B F"], faces: Int[Array | np.ndarray, "F 3"], *, num_vertices: int
) -> Bool[Array, "*B V"]:
  """True for the vertices of visible faces.

  Args:
    visible: of each face, from `visible_faces`.
    faces: of the mesh.
    num_vertices: V.
  """
  corners = jnp.repeat(visible, 3, axis=-1)
  found = jnp.zeros((*visible.shape[:-1], num_vertices), jnp.bool_)
  return found.at[..., jnp.asarray(faces).reshape(-1)].max(corners)
