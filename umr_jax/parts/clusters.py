"""Parts without learning, to be beaten: by position in the box of the mask."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.cluster.vq import kmeans2

from umr_jax.data.example import mask_box
from umr_jax.types import checked

# Pixels, over all images, that the centres are found on.
_SAMPLES = 40_000
_ITERATIONS = 30


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
  centers, _ = kmeans2(sample.astype(np.float64), num_parts, iter=_ITERATIONS, minit="++", rng=rng)
  return Clusters(mean, deviation, centers.astype(np.float32))


@checked
def cluster_maps(
  clusters: Clusters, masks: Float[np.ndarray, "N S S"]
) -> Float[np.ndarray, "N S S P1"]:
  """Part maps, background first: inside the mask each pixel is the part of the nearest centre."""
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
