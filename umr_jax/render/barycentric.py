"""The weights of a face's corners at each pixel, and the depth that they interpolate.

Source: Liu et al. 2019, "Soft Rasterizer", section 3.3; with the clipping of barycentric weights of
the kernel that UMR was trained with.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from umr_jax.render.rows import Rows, Triple

# Barycentric weights are clipped to [_CLIP, 1 - _CLIP]: at 0 and 1 a texel look-up ties or leaves
# the face.
_CLIP = 1e-5


def barycentric(distances: Triple, rows: Rows) -> Triple:
  """The pixel's affine weights of the three corners, unclipped.

  Args:
    distances: from the lines of the three edges.
    rows: the faces and tiles.
  """
  inverse = jnp.abs(rows.inverse_determinant)
  return tuple(distances[i] * (rows.length[i] * inverse) for i in (1, 2, 0))


def clip_weights(weights: Triple) -> tuple[Triple, Float[Array, "R 16"]]:
  """Weights clipped to the triangle, and their sum, by which they are still to be divided."""
  w = tuple(jnp.clip(value, _CLIP, 1.0 - _CLIP) for value in weights)
  return w, w[0] + w[1] + w[2]


def depth_at(weights: Triple, total: Array, rows: Rows) -> Float[Array, "R 16"]:
  """The depth of the face at each pixel, interpolated perspectively with clipped weights.

  Args:
    weights: clipped barycentric weights.
    total: the sum of the weights.
    rows: the faces and tiles.
  """
  a, b, c = (w * inverse for w, inverse in zip(weights, rows.inverse_depth, strict=True))
  return total / (a + b + c)


def as_integers(depth: Float[Array, "*N"]) -> Int[Array, "*N"]:
  """The bits of depths, which compare as the depths do, since none is negative.

  The minimum of integers costs a third: that of floats has to hand on what is not a number.
  """
  return lax.bitcast_convert_type(depth, jnp.int32)


def as_floats(bits: Int[Array, "*N"]) -> Float[Array, "*N"]:
  """The inverse of `as_integers`."""
  return lax.bitcast_convert_type(bits, jnp.float32)
