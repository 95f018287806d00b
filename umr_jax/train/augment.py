"""What changes in a photograph without changing what it shows: its colours, its slant.

A few hundred photographs are otherwise learned by heart.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from umr_jax.geometry.sampling import bilinear_sample
from umr_jax.types import Batch, checked

# Of red, green and blue in what the eye takes for brightness (ITU-R BT.601).
_LUMA = (0.299, 0.587, 0.114)


class Strengths(NamedTuple):
  """How much training pictures change; see `color_jitter` and `slant`."""

  color: float = 0.0
  rotation: float = 0.0  # degrees to either side
  stretch: float = 0.0


UNCHANGED = Strengths()


@checked
def color_jitter(
  images: Float[Array, "B H W 3"], index: Int[Array, "B"], key: PRNGKeyArray, strength: float
) -> Float[Array, "B H W 3"]:
  """Photographs in another light: gains of the channels, contrast and saturation drawn anew.

  Only the network sees them; what the texture is compared with stays the photograph.

  Args:
    images: RGB in [0, 1].
    index: of each image in the data set; its draw does not depend on the rest of the batch.
    key: of the step.
    strength: every factor is exp(u) with u uniform in [-strength, strength].

  Returns:
    RGB in [0, 1].
  """
  factors = jnp.exp(strength * _draws(index, key, 5))[:, None, None, :]
  gains, contrast, saturation = factors[..., :3], factors[..., 3:4], factors[..., 4:]
  grey = jnp.sum(images * jnp.array(_LUMA).reshape(1, 1, 1, 3), axis=-1, keepdims=True)
  images = grey + saturation * (images - grey)
  mean = jnp.mean(images, axis=(1, 2), keepdims=True)
  return jnp.clip((mean + contrast * (images - mean)) * gains, 0.0, 1.0)


@checked
def slant(batch: Batch, key: PRNGKeyArray, *, rotation: float, stretch: float) -> Batch:
  """The same objects turned in the image plane, and longer or taller.

  Photograph, silhouette and barrier move together, about the centre of the crop. What comes in
  from outside of it is white, outside of the silhouette and beyond the barrier, as in
  `data.transforms`.

  Args:
    batch: square crops without part maps.
    key: of the step; an image's draw does not depend on the rest of the batch.
    rotation: the largest turn to either side, in degrees.
    stretch: the width grows by exp(u) and the height shrinks by as much, with u uniform in
      [-stretch, stretch].

  Raises:
    ValueError: for a batch with part maps, which no training loss reads yet.
  """
  if batch.parts is not None:
    raise ValueError("found part maps in a training batch; slant moves none")
  draws = _draws(batch.index, key, 2)
  angle, growth = math.radians(rotation) * draws[:, 0], jnp.exp(stretch * draws[:, 1])
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  # From a place in the new picture to the one in the old picture that is seen there.
  rows = [[cos / growth, sin / growth], [-sin * growth, cos * growth]]
  matrix = jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)
  size = batch.mask.shape[-1]
  centers = (2.0 * jnp.arange(size, dtype=jnp.float32) + 1.0 - size) / size
  grid = jnp.stack(jnp.meshgrid(centers, centers, indexing="xy"), axis=-1).reshape(-1, 2)
  points = jnp.einsum("bij,nj->bni", matrix, grid)
  # Outside, a look-up gives zero: what is to be one there goes through it as one's complement.
  maps = jnp.concatenate(
    [1.0 - batch.image, 1.0 - batch.barrier[..., None], batch.mask[..., None]], axis=-1
  )
  moved = bilinear_sample(maps, points).reshape(maps.shape)
  return dataclasses.replace(
    batch, image=1.0 - moved[..., :3], barrier=1.0 - moved[..., 3], mask=moved[..., 4]
  )


def augmented(
  batch: Batch, key: PRNGKeyArray, strengths: Strengths
) -> tuple[Batch, Float[Array, "B H W 3"]]:
  """The batch that a step learns from, and the photographs as the network sees them."""
  color_key, slant_key = jax.random.split(key)
  if strengths.rotation or strengths.stretch:
    batch = slant(batch, slant_key, rotation=strengths.rotation, stretch=strengths.stretch)
  if not strengths.color:
    return batch, batch.image
  return batch, color_jitter(batch.image, batch.index, color_key, strengths.color)


def _draws(index: Int[Array, "B"], key: PRNGKeyArray, count: int) -> Float[Array, "B N"]:
  """Uniform numbers in [-1, 1] for each image of the data set."""
  keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
  return jax.vmap(lambda k: jax.random.uniform(k, (count,), minval=-1.0, maxval=1.0))(keys)
