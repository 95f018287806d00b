"""Multinomial logistic regression on frozen features: parts from maps of some images, in seconds.

The features already separate heads from tails: what is fitted is a linear layer.

It is fitted here and not by scikit-learn, whose LogisticRegression takes one label a row: a cell of
a feature map that lies on a border belongs to several parts in shares, and each share counts.

Departs: in the paper reconstructions supervise SCOPS anew (supplementary 1). Here they do so where
  parts.steps is set; by default they supervise this head.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from umr_jax.types import checked

# Cells, over all images, that a head is fitted to; steps and rate of the fit.
CELLS, _STEPS, _RATE = 30_000, 200, 0.03
# What a weight of 1 costs, in nats a cell: features are many, and their cells are not independent.
_DECAY = 3e-3


class Head(NamedTuple):
  """Logits of the parts, without background, as a linear function of standardised features."""

  mean: Float[np.ndarray, "C"]
  deviation: Float[np.ndarray, "C"]
  kernel: Float[np.ndarray, "C P"]
  bias: Float[np.ndarray, "P"]


class Cells(NamedTuple):
  """What a head is fitted to."""

  features: Float[np.ndarray, "M C"]
  shares: Float[np.ndarray, "M P"]  # of the parts, without background; not yet summing to 1


@checked
def part_cells(
  features: Float[np.ndarray, "N h w C"],
  targets: Float[np.ndarray, "N h w P1"],
  *,
  most: int,
  rng: np.random.Generator,
) -> Cells:
  """The cells of some images that belong to a part; those that are mostly background are left out.

  Args:
    features: of a frozen network.
    targets: part maps at the features' size, background first; all zeros for an image without.
    most: how many are taken, sampled where there are more.
    rng: of the sample.
  """
  inside = np.flatnonzero(targets[..., 1:].sum(axis=-1) >= 0.5)
  inside = rng.permutation(inside)[:most]
  rows, shares = (x.reshape(-1, x.shape[-1])[inside] for x in (features, targets))
  return Cells(rows, shares[:, 1:])


def fit_head(cells: Cells) -> Head:
  """Fits the head to part maps by cross-entropy (multinomial logistic regression).

  Args:
    cells: of any number of images.

  Raises:
    ValueError: when there is none.
  """
  rows, shares = cells
  if not len(rows):
    raise ValueError("no part map has a cell that belongs to a part: there is nothing to fit")
  mean, deviation = rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-6)
  shares = shares / shares.sum(axis=-1, keepdims=True)
  kernel, bias = _fit(jnp.asarray((rows - mean) / deviation), jnp.asarray(shares))
  return Head(mean, deviation, np.asarray(kernel), np.asarray(bias))


@jax.jit
def _fit(rows: Float[Array, "M C"], shares: Float[Array, "M P"]) -> tuple[Array, Array]:
  def loss(params: tuple[Array, Array]) -> Array:
    kernel, bias = params
    logits = rows @ kernel + bias[None]
    entropy = -jnp.mean(jnp.sum(shares * jax.nn.log_softmax(logits, axis=-1), axis=-1))
    return entropy + _DECAY * jnp.sum(jnp.square(kernel))

  optimizer = optax.adam(optax.cosine_decay_schedule(_RATE, _STEPS))

  def step(_: int, carry: tuple) -> tuple:
    params, state = carry
    updates, state = optimizer.update(jax.grad(loss)(params), state)
    return optax.apply_updates(params, updates), state

  params = (jnp.zeros((rows.shape[-1], shares.shape[-1])), jnp.zeros(shares.shape[-1]))
  # Optax counts its steps as integers and multiplies them into its rates.
  with jax.numpy_dtype_promotion("standard"):
    params, _ = jax.lax.fori_loop(0, _STEPS, step, (params, optimizer.init(params)))
  return params


@checked
def head_maps(
  head: Head, features: Float[np.ndarray, "N h w C"], masks: Float[np.ndarray, "N S S"]
) -> Float[np.ndarray, "N S S P1"]:
  """Part maps at the resolution of the masks, background first, and parts inside of them alone.

  Args:
    head: from `fit_head`.
    features: of some images.
    masks: their silhouettes.
  """
  logits = ((features - head.mean) / head.deviation) @ head.kernel + head.bias
  shape = (*masks.shape, logits.shape[-1])
  smooth = jax.image.resize(jnp.asarray(logits, jnp.float32), shape, "cubic")
  parts = np.asarray(jax.nn.softmax(smooth, axis=-1)) * masks[..., None]
  return np.concatenate([1.0 - masks[..., None], parts], axis=-1).astype(np.float32)
