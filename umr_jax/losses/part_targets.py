"""What an image says of its parts, in the two forms that the semantic terms compare with."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from umr_jax.random import per_image_keys
from umr_jax.types import checked

# Points that stand for a part, and how many are drawn before the outermost are left out.
POINTS, _DRAWN = 32, 48
# A part with less than this many pixels of the render is not seen.
_LEAST = 1.0


class PartTargets(NamedTuple):
  """The parts of each image, without the background."""

  probs: Float[Array, "B H W P"]  # inside the silhouette
  seen: Float[Array, "B P"]  # 1 where an image shows a part, else 0
  points: Float[Array, "B P N 2"]  # image positions, spread over the part


@checked
def part_targets(
  parts: Float[Array, "B H W P1"],
  mask: Float[Array, "B H W"],
  index: Int[Array, "B"],
  key: PRNGKeyArray,
) -> PartTargets:
  """Part maps as targets: their probabilities, and points drawn from each.

  Of the points drawn from a part those farthest from its centre are left out, so that a stray pixel
  attracts nothing.

  Args:
    parts: probabilities, background first; all zeros where an image has no part map.
    mask: silhouettes.
    index: of each image in its split; its draw does not depend on the rest of the batch.
    key: of the step.

  Source: Li et al. 2020, section 3.2, and the released sampling. Departs: as many points from each
    part, drawn with replacement and anywhere within a pixel.
  """
  probs = parts[..., 1:] * mask[..., None]
  mass = jnp.sum(probs, axis=(1, 2))
  seen = (mass >= _LEAST).astype(probs.dtype)
  keys = per_image_keys(key, index)
  planes = jnp.moveaxis(probs, -1, 1)
  points = jax.vmap(_draw)(planes, keys)
  return PartTargets(probs=probs, seen=seen, points=points)


def _draw(planes: Float[Array, "P H W"], key: PRNGKeyArray) -> Float[Array, "P N 2"]:
  """Points of one image's parts; anywhere for a part that is not there."""
  parts, height, width = planes.shape
  place_key, shift_key = jax.random.split(key)
  cumulative = jnp.cumsum(planes.reshape(parts, -1), axis=-1)
  # Below the last sum, so that rounding never picks a pixel beyond it.
  level = jax.random.uniform(place_key, (parts, _DRAWN)) * cumulative[:, -1:] * (1.0 - 1e-6)
  pixel = jax.vmap(lambda table, x: jnp.searchsorted(table, x, side="right"))(cumulative, level)
  pixel = jnp.minimum(pixel, height * width - 1)
  corner = jnp.stack([pixel % width, pixel // width], axis=-1).astype(planes.dtype)
  place = corner + jax.random.uniform(shift_key, corner.shape)
  points = 2.0 * place / jnp.array([[[width, height]]], planes.dtype) - 1.0
  gap = jnp.sum(jnp.square(points - jnp.mean(points, axis=1, keepdims=True)), axis=-1)
  nearest = jnp.argsort(gap, axis=-1)[:, :POINTS]
  return jnp.take_along_axis(points, nearest[..., None], axis=1)
