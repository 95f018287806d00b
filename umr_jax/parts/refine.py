"""From the network's probabilities to part maps: normalized, smoothed by a CRF, and masked."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.types import checked

# Smallest probability whose logarithm is taken.
_CLIP = 1e-5
# What every part competes with, once its largest value is 1.
_BACKGROUND = 0.1
# A part whose largest probability is less is not lifted to 1, so that the noise of a part that is
# not there does not compete.
_LEAST = 0.1
# Of the mean field: the Gaussian by which neighbours are weighed, in pixels; the cost of their
# disagreement; and the iterations.
_SIGMA, _COMPATIBILITY, _ITERATIONS = 3.0, 5.0, 5


@checked
def refine(
  probs: Float[Array, "B H W P1"],
  mask: Float[Array, "B H W"],
) -> Float[Array, "B H W P1"]:
  """Part maps as UMR reads them.

  Args:
    probs: softmax of the part network's logits, background first.
    mask: of the objects, in [0, 1].

  Returns:
    Probabilities, background first, which sum to 1; outside of the mask all is background.

  Source: Hung et al. 2019 (SCOPS), section 4.1, and the released evaluation: a fully connected CRF
    (Krähenbühl and Koltun 2011) on positions alone. Departs: the maxima are taken inside the mask,
    and the mask is applied here; a part whose largest probability is less than 0.1 is not lifted to
    1.
  """
  inside = mask[..., None]
  parts = probs[..., 1:]
  largest = jnp.max(parts * inside, axis=(1, 2), keepdims=True)
  parts = parts / jnp.maximum(largest, _LEAST)
  field = jnp.concatenate([jnp.full_like(parts[..., :1], _BACKGROUND), parts], axis=-1)
  smooth = mean_field(field, sigma=_SIGMA, compatibility=_COMPATIBILITY, iterations=_ITERATIONS)
  shown = smooth[..., 1:] * inside
  return jnp.concatenate([1.0 - jnp.sum(shown, axis=-1, keepdims=True), shown], axis=-1)


@checked
def mean_field(
  field: Float[Array, "B H W P1"], *, sigma: float, compatibility: float, iterations: int
) -> Float[Array, "B H W P1"]:
  """Labels that agree with their neighbours, as a CRF with Potts costs on positions has them.

  Args:
    field: scores in [0, 1]; their negative logarithms are the labels' own costs.
    sigma: of the neighbours' Gaussian, in pixels.
    compatibility: cost of neighbours with other labels.
    iterations: of the mean field.

  Returns:
    Probabilities, after each iteration softmax(log field + compatibility K Q), with K the Gaussian
    between all pixels, normalized symmetrically by the square roots of its row sums.

  Source: Krähenbühl and Koltun 2011, algorithm 1. Departs: a pixel also counts among its own
    neighbours, as in the filters of published implementations.
  """
  height, width = field.shape[1:3]
  rows, columns = (_kernel(n, sigma, field.dtype) for n in (height, width))
  unary = jnp.log(jnp.clip(field, _CLIP, 1.0))
  labels = jax.nn.softmax(unary, axis=-1)
  for _ in range(iterations):
    # The Gaussian is separable, and so is its normalization.
    message = jnp.einsum("ih,bhwp,jw->bijp", rows, labels, columns)
    labels = jax.nn.softmax(unary + compatibility * message, axis=-1)
  return labels


def _kernel(size: int, sigma: float, dtype: jnp.dtype) -> Float[Array, "N N"]:
  """The Gaussian between the pixels of a line, normalized symmetrically."""
  place = jnp.arange(size, dtype=dtype)
  kernel = jnp.exp(-0.5 * jnp.square((place[:, None] - place[None]) / sigma))
  scale = jax.lax.rsqrt(jnp.sum(kernel, axis=1))
  return scale[:, None] * kernel * scale[None]
