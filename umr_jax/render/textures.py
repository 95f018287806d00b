"""Which texels a face shows at a pixel, and the gradient on them."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from umr_jax.render.pairs import Pairs, Settings
from umr_jax.render.rows import Rows, Triple

# Added to a whole number that is smaller, it leaves the number in the lowest bits of the sum.
_WHOLE = np.float32(1 << 23)


def texel_index(weights: Triple, side: int) -> Array:
  """The texel of a face's `side` x `side` triangular cells that a pixel reads.

  Args:
    weights: clipped barycentric weights.
    side: texels along each side of a face.
  """
  u_position, v_position = weights[0] * side, weights[1] * side
  u, v = jnp.floor(u_position), jnp.floor(v_position)
  lower = (u_position - u) + (v_position - v) <= 1.0
  number = jnp.where(lower, v * side + u, (side - 1 - v) * side + (side - 1 - u))
  number = jnp.clip(number, 0.0, side * side - 1.0)
  if side * side >= _WHOLE:
    return number.astype(jnp.int32)
  # Each channel reads with this index, and would compute it anew. A division is computed once, be
  # it by one (no weight is zero); and the bits of the sum are the number, without a conversion.
  number = (number + _WHOLE) / jnp.where(weights[2] > 0.0, 1.0, 2.0)
  return lax.bitcast_convert_type(number, jnp.int32) - _WHOLE.view(np.int32)


def colors_at(face: Array, weights: Triple, textures: Array, settings: Settings) -> Array:
  """The colour [..., C] of face `face` at clipped weights; `textures` is [N, T, C].

  Args:
    face: numbers of faces, through the whole batch.
    weights: clipped barycentric weights.
    textures: of all faces.
    settings: of the rasterizer.
  """
  _, texels, channels = textures.shape
  if settings.texture_type == "vertex":
    corner = textures.at[face].get(mode="promise_in_bounds")
    first, second, third = (w[..., None] * corner[..., i, :] for i, w in enumerate(weights))
    return first + second + third
  if texels == 1:
    return textures[:, 0].at[face].get(mode="promise_in_bounds")
  index = face * texels + texel_index(weights, round(np.sqrt(texels)))
  return textures.reshape(-1, channels).at[index].get(mode="promise_in_bounds")


def colors_of(
  rows: Rows, weights: Triple, textures: Array, settings: Settings
) -> Float[Array, "R C 16"]:
  """The colour of each row's face at each pixel, or [R, C, 1] where it is the same at all.

  Channels come before pixels, so that what is done for 16 pixels is done at once.

  Args:
    rows: the faces and tiles.
    weights: clipped barycentric weights.
    textures: of all faces.
    settings: of the rasterizer.
  """
  face = jnp.minimum(rows.face, textures.shape[0] - 1)
  _, texels, channels = textures.shape
  if settings.texture_type == "vertex" or texels == 1:
    corner = textures.at[face].get(mode="promise_in_bounds")[..., None]
    if texels == 1:
      return corner[:, 0]
    first, second, third = (w[:, None] * corner[:, i] for i, w in enumerate(weights))
    return first + second + third
  index = face[:, None] * texels + texel_index(weights, round(np.sqrt(texels)))
  index = channels * index[:, None] + np.arange(channels, dtype=np.int32)[None, :, None]
  return textures.reshape(-1).at[index].get(mode="promise_in_bounds")


def add_texel_gradients(
  textures: Array,
  rows: Rows,
  pairs: Pairs,
  weights: Array,
  color_cotangent: Array,
  settings: Settings,
) -> Array:
  """Adds each pixel's gradient on colour, times its weight, to the texel that it read.

  Args:
    textures: the gradient so far, [N, T, C] of all faces.
    rows: the faces and tiles.
    pairs: of these rows.
    weights: of each pair in its pixel's colour.
    color_cotangent: the gradient on colour at each pixel.
    settings: of the rasterizer.
  """
  faces, texels, channels = textures.shape
  face = jnp.minimum(rows.face, faces - 1)
  scaled = weights[..., None] * color_cotangent
  if settings.texture_type == "vertex":
    sums = jnp.stack([jnp.sum(w[..., None] * scaled, axis=1) for w in pairs.weights], axis=1)
    return textures.at[face].add(sums, mode="promise_in_bounds")
  if texels == 1:
    return textures.at[face, 0].add(jnp.sum(scaled, axis=1), mode="promise_in_bounds")
  index = face[:, None] * texels + texel_index(pairs.weights, round(np.sqrt(texels)))
  # Most pairs weigh nothing; out of bounds they are skipped, at half the cost of adding zero.
  index = jnp.where(weights > 0.0, index, faces * texels)
  flat = textures.reshape(-1, channels).at[index].add(scaled, mode="drop")
  return flat.reshape(textures.shape)
