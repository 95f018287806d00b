"""Probability-based semantic consistency: the canonical parts, rendered, meet the image's parts."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.types import checked

# Mass, as a share of the image, below which a part has no centre to speak of.
_LEAST = 1e-3


@checked
def part_probability_loss(
  *,
  rendered: Float[Array, "*B H W P"],
  target: Float[Array, "*B H W P"],
  seen: Float[Array, "*B P"],
) -> Float[Array, "*B"]:
  """How far the rendered part maps are from the image's, pixel by pixel and by their centres.

  Args:
    rendered: coverage of each pixel by each part of the canonical map, in [0, 1].
    target: the image's part probabilities inside its silhouette.
    seen: 1 for the parts that the image shows, else 0. An image that shows none costs nothing: it
      has no part map.

  Returns:
    (map + centre) / 4, with `map` the mean over pixels of the squared differences, summed over the
    parts, and `centre` the mean squared distance between the centres of the parts that both show.

  Source: Li et al. 2020, equation 2; the centres and the quarter are the released code's.
    Departs: all parts count alike, and maps are compared as probabilities, where the released code
    scales each to a largest value of 1 and takes centres of a softmax that is nearly flat.
  """
  known = jnp.max(seen, axis=-1)
  pixels = jnp.mean(jnp.sum(jnp.square(rendered - target), axis=-1), axis=(-2, -1))
  there, here = _centres(rendered), _centres(target)
  both = seen * (jnp.mean(rendered, axis=(-3, -2)) > _LEAST).astype(seen.dtype)
  gaps = 0.5 * jnp.sum(jnp.square(there - here), axis=-1)
  centres = jnp.sum(both * gaps, axis=-1) / jnp.maximum(jnp.sum(both, axis=-1), 1.0)
  return known * 0.25 * (pixels + centres)


def _centres(maps: Float[Array, "*B H W P"]) -> Float[Array, "*B P 2"]:
  """The image positions of the maps' centres of mass; the origin for an empty map."""
  height, width = maps.shape[-3:-1]
  x = (2.0 * jnp.arange(width, dtype=maps.dtype) + 1.0 - width) / width
  y = (2.0 * jnp.arange(height, dtype=maps.dtype) + 1.0 - height) / height
  mass = jnp.maximum(jnp.sum(maps, axis=(-3, -2)), 1e-6)
  across = jnp.einsum("...hwp,w->...p", maps, x) / mass
  down = jnp.einsum("...hwp,h->...p", maps, y) / mass
  return jnp.stack([across, down], axis=-1)
