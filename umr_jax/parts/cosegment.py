"""Co-segmentation: parts as non-negative factors of frozen features inside the masks of all images.

A network trained to classify images has alike features at the heads of two animals, whatever their
colours. Factors of its features over a whole data set are parts that all of its images share. As a
reference there are parts by position alone: clusters of places in the box of the mask.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.cluster.vq import kmeans2
from sklearn.decomposition import NMF, non_negative_factorization

from umr_jax.data.example import mask_box
from umr_jax.types import checked

# Rows, over all images, that the factors are found on, and iterations at most.
_ROWS, _ITERATIONS = 16_000, 400
_EPSILON = 1e-8
# The smallest weight that counts: where no factor has any, all parts are equally likely.
_LEAST = 1e-3
# The power of the weights by which parts share a pixel: targets that a network can be sure of.
_SHARPNESS = 4

Extract = Callable[[Array], Array]


def mirrored_features(extract: Extract, images: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
  """Features that are equivariant to mirroring: the mean of both, so that parts have no side.

  Args:
    extract: from images to features.
    images: RGB in [0, 1].
  """
  return 0.5 * (extract(images) + extract(images[:, :, ::-1])[:, :, ::-1])


@checked
def factorize(
  rows: Float[np.ndarray, "M C"], *, num_parts: int, seed: int
) -> Float[np.ndarray, "P C"]:
  """Non-negative matrix factorisation, rows = weights basis.

  Args:
    rows: non-negative features.
    num_parts: P.
    seed: of the sample of rows and of the initialization.

  Returns:
    The basis, each factor of unit length, or zero where the rows are.

  Source: Lee and Seung 2001, by coordinate descent (Cichocki and Phan 2009) from singular vectors
    (Boutsidis and Gallopoulos 2008); as a way to co-segment, Collins et al. 2018 ("Deep Feature
    Factorization").
  """
  sample = rows[np.random.default_rng(seed).permutation(len(rows))[:_ROWS]]
  if not sample.any():
    return np.zeros((num_parts, rows.shape[1]), np.float32)
  model = NMF(num_parts, max_iter=_ITERATIONS, random_state=seed)
  model.fit(sample)
  length = np.linalg.norm(model.components_, axis=-1, keepdims=True)
  return model.components_ / np.maximum(length, _EPSILON)


@checked
def factor_weights(
  rows: Float[np.ndarray, "M C"], basis: Float[np.ndarray, "P C"]
) -> Float[np.ndarray, "M P"]:
  """The non-negative weights of fixed factors in each row.

  Args:
    rows: non-negative features.
    basis: from `factorize`.
  """
  if not basis.any():
    return np.zeros((len(rows), len(basis)), np.float32)
  weights, _, _ = non_negative_factorization(
    rows, H=basis, n_components=len(basis), update_H=False, max_iter=_ITERATIONS
  )
  return weights


class Factors(NamedTuple):
  """Parts as directions in the space of features."""

  lowest: Float[np.ndarray, "C"]  # taken from features that may be negative
  basis: Float[np.ndarray, "P C"]
  scale: Float[np.ndarray, "P"]  # each factor's mean weight over all objects


@checked
def object_cells(
  features: Float[np.ndarray, "N h w C"],
  masks: Float[np.ndarray, "N h w"],
  *,
  most: int,
  rng: np.random.Generator,
) -> Float[np.ndarray, "M C"]:
  """The cells of some images' features that lie inside of their masks.

  Args:
    features: of a frozen network.
    masks: silhouettes at the features' size.
    most: how many are taken; sampled where there are more, in their order.
    rng: of the sample.
  """
  inside = np.flatnonzero(masks >= 0.5)
  if len(inside) > most:
    inside = np.sort(rng.choice(inside, most, replace=False))
  return features.reshape(-1, features.shape[-1])[inside]


@checked
def find_factors(
  cells: Float[np.ndarray, "M C"], *, lowest: Float[np.ndarray, "C"], num_parts: int, seed: int
) -> Factors:
  """The factors of features inside the masks of all images.

  Args:
    cells: from `object_cells`; signed features are shifted so that none is negative.
    lowest: the smallest value of each feature in all images, inside the masks and outside.
    num_parts: P.
    seed: see `factorize`.

  Raises:
    ValueError: when fewer cells are inside of the masks than there are parts.
  """
  if len(cells) < num_parts:
    raise ValueError(
      f"the masks cover {len(cells)} pixels of the feature maps, fewer than the {num_parts} parts "
      "to be found; set parts.feature_size higher"
    )
  shift = np.minimum(lowest, 0.0)
  inside = cells - shift
  basis = factorize(inside, num_parts=num_parts, seed=seed)
  return Factors(shift, basis, factor_weights(inside, basis).mean(axis=0))


@checked
def factor_maps(
  factors: Factors, features: Float[np.ndarray, "N h w C"], masks: Float[np.ndarray, "N S S"]
) -> Float[np.ndarray, "N S S P1"]:
  """Soft part maps at the resolution of the masks.

  Args:
    factors: of the data set.
    features: of some images.
    masks: their silhouettes.

  Returns:
    Background first. Inside the mask a power of each factor's weight, in units of its mean over the
    data set, is the share of a pixel that is its part: without the units, factors of strong
    features would suppress the others.
  """
  rows = np.maximum(features - factors.lowest, 0.0).reshape(-1, features.shape[-1])
  weights = factor_weights(rows, factors.basis) / np.maximum(factors.scale, _EPSILON)
  weights = weights.reshape(*features.shape[:3], -1)
  shape = (*masks.shape, weights.shape[-1])
  smooth = np.asarray(jax.image.resize(jnp.asarray(weights), shape, "cubic"))
  shares = np.maximum(smooth, _LEAST) ** _SHARPNESS
  parts = shares / shares.sum(axis=-1, keepdims=True) * masks[..., None]
  return np.concatenate([1.0 - masks[..., None], parts], axis=-1).astype(np.float32)


# Pixels, over all images, that the centres are found on.
_SAMPLES = 40_000
_KMEANS_ITERATIONS = 30


class Clusters(NamedTuple):
  """Centres in a space where all pixels of all objects have mean 0 and variance 1."""

  mean: Float[np.ndarray, "C"]
  deviation: Float[np.ndarray, "C"]
  centers: Float[np.ndarray, "P C"]


@checked
def find_clusters(masks: Float[np.ndarray, "N S S"], *, num_parts: int, seed: int) -> Clusters:
  """k-means over the pixels of all objects together.

  Args:
    masks: silhouettes; at least one pixel of one of them is inside.
    num_parts: P.
    seed: of the sampled pixels and the first centres.
  """
  pixels = _places(masks)[masks >= 0.5]
  mean, deviation = pixels.mean(axis=0), np.maximum(pixels.std(axis=0), 1e-6)
  rng = np.random.default_rng(seed)
  sample = ((pixels - mean) / deviation)[rng.permutation(len(pixels))[:_SAMPLES]]
  centers, _ = kmeans2(
    sample.astype(np.float64), num_parts, iter=_KMEANS_ITERATIONS, minit="++", rng=rng
  )
  return Clusters(mean, deviation, centers.astype(np.float32))


@checked
def cluster_maps(
  clusters: Clusters, masks: Float[np.ndarray, "N S S"]
) -> Float[np.ndarray, "N S S P1"]:
  """Part maps, background first: inside the mask each pixel is the part of the nearest centre.

  Args:
    clusters: from `find_clusters`.
    masks: silhouettes.
  """
  pixels = (_places(masks) - clusters.mean) / clusters.deviation
  distance = np.sum(np.square(pixels[..., None, :] - clusters.centers), axis=-1)
  nearest = np.argmin(distance, axis=-1)
  parts = np.zeros((*masks.shape, len(clusters.centers) + 1), np.float32)
  np.put_along_axis(parts, 1 + nearest[..., None], masks[..., None], axis=-1)
  parts[..., 0] = 1.0 - masks
  return parts


def _places(masks: np.ndarray) -> np.ndarray:
  """[N, S, S, 2]: x and y of each pixel in [0, 1] of its mask's box."""
  size = masks.shape[1]
  places = np.zeros((*masks.shape, 2), np.float32)
  centers = np.arange(size) + 0.5
  for n, mask in enumerate(masks):
    x0, y0, x1, y1 = mask_box(mask) or (0.0, 0.0, float(size), float(size))
    places[n, ..., 0] = ((centers - x0) / (x1 - x0))[None]
    places[n, ..., 1] = ((centers - y0) / (y1 - y0))[:, None]
  return places
