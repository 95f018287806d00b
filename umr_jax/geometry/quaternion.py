"""Quaternion algebra for rotations.

Components are ordered (w, x, y, z), the product is Hamilton's, and a unit quaternion q rotates a
point X actively to q X q*. The quaternions q and -q are the same rotation. Every function works on
any leading batch dimensions.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.checking import checked

# Shorter than this, a quaternion carries no direction that float32 could still normalize.
_SHORTEST = 1e-30


@checked
def multiply(a: Float[Array, "*B 4"], b: Float[Array, "*B 4"]) -> Float[Array, "*B 4"]:
  """The Hamilton product a b: as rotations, first b, then a.

  Args:
    a: the rotation applied last.
    b: the rotation applied first.

  Returns:
    The product; a unit quaternion where both factors are.
  """
  aw, ax, ay, az = jnp.moveaxis(a, -1, 0)
  bw, bx, by, bz = jnp.moveaxis(b, -1, 0)
  return jnp.stack(
    [
      aw * bw - ax * bx - ay * by - az * bz,
      aw * bx + ax * bw + ay * bz - az * by,
      aw * by - ax * bz + ay * bw + az * bx,
      aw * bz + ax * by - ay * bx + az * bw,
    ],
    axis=-1,
  )


@checked
def conjugate(q: Float[Array, "*B 4"]) -> Float[Array, "*B 4"]:
  """The conjugate q*, which for a unit quaternion is the inverse rotation."""
  return jnp.concatenate([q[..., :1], -q[..., 1:]], axis=-1)


@checked
def normalize(q: Float[Array, "*B 4"]) -> Float[Array, "*B 4"]:
  """The unit quaternion in the direction of `q`, with finite gradients even at zero.

  Args:
    q: any quaternion; a network's raw output.

  Returns:
    q / |q|. Where q is zero (no component above 1e-30) this is the identity (1, 0, 0, 0), and no
    gradient flows.
  """
  largest = jax.lax.stop_gradient(jnp.max(jnp.abs(q), axis=-1, keepdims=True))
  vanishes = largest < _SHORTEST
  # The result does not depend on the scale, so that a constant scale leaves the gradient right
  # while it keeps the squares below from overflowing or underflowing.
  scaled = jnp.where(
    vanishes, _constant((1.0, 0.0, 0.0, 0.0), q), q / _where_one(vanishes, largest)
  )
  return scaled * jax.lax.rsqrt(jnp.sum(jnp.square(scaled), axis=-1, keepdims=True))


@checked
def rotate(points: Float[Array, "*B N 3"], q: Float[Array, "*B 4"]) -> Float[Array, "*B N 3"]:
  """Rotates points actively: q X q*.

  Args:
    points: what is turned.
    q: one unit quaternion for each set of N points. One of another length also scales the points,
      by the square of its length.

  Returns:
    The turned points.
  """
  # Full precision: an accelerator's default would round the coordinates to 10 bits.
  return jnp.einsum("...ij,...nj->...ni", to_matrix(q), points, precision="highest")


@checked
def to_matrix(q: Float[Array, "*B 4"]) -> Float[Array, "*B 3 3"]:
  """The matrix R with R X = q X q*.

  Args:
    q: unit quaternions. (The matrix of another one is scaled by the square of its length.)

  Returns:
    Rotation matrices that act on column vectors.
  """
  w, x, y, z = jnp.moveaxis(q, -1, 0)
  ww, xx, yy, zz = w * w, x * x, y * y, z * z
  rows = [
    [ww + xx - yy - zz, 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)],
    [2.0 * (x * y + w * z), ww - xx + yy - zz, 2.0 * (y * z - w * x)],
    [2.0 * (x * z - w * y), 2.0 * (y * z + w * x), ww - xx - yy + zz],
  ]
  return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


@checked
def from_axis_angle(axis: Float[Array, "*B 3"], angle: Float[Array, "*B"]) -> Float[Array, "*B 4"]:
  """The rotation about an axis by the right-hand rule.

  Args:
    axis: unit vectors.
    angle: radians.

  Returns:
    Unit quaternions.
  """
  half = 0.5 * angle[..., None]
  return jnp.concatenate([jnp.cos(half), jnp.sin(half) * axis], axis=-1)


def _where_one(condition: Array, values: Array) -> Array:
  """`values`, but 1 where `condition` holds: a safe operand of a quotient or root."""
  return jnp.where(condition, 1.0, values)


def _constant(values: tuple[float, ...], like: Array) -> Array:
  """The vector `values`, with as many dimensions as `like`."""
  return jnp.asarray(values, like.dtype).reshape((1,) * (like.ndim - 1) + (len(values),))
