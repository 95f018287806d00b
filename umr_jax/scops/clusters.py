"""Parts without learning, to be beaten: by position in the box of the mask, and by colour too."""

import numpy as np
from jaxtyping import Float
from scipy.cluster.vq import kmeans2

from umr_jax.data.example import mask_box
from umr_jax.types import checked

# Pixels, over all images, that the centres are found on.
_SAMPLES = 40_000
_ITERATIONS = 30


@checked
def cluster_parts(
  images: Float[np.ndarray, "N S S 3"],
  masks: Float[np.ndarray, "N S S"],
  *,
  num_parts: int,
  color: bool,
  seed: int,
) -> Float[np.ndarray, "N S S P1"]:
  """k-means over the pixels of all objects together.

  Args:
    images: RGB in [0, 1].
    masks: silhouettes; at least one pixel of one of them is inside.
    num_parts: P.
    color: whether a pixel is its colour and its place, or its place alone. Places are in [0, 1] of
      the mask's box, and count as much as colours, all of unit variance.
    seed: of the sampled pixels and the first centres.

  Returns:
    One part a pixel: the mask inside it, and background first.
  """
  count, size = masks.shape[:2]
  inside = masks >= 0.5
  pixels = _places(masks)
  if color:
    pixels = np.concatenate([pixels, images], axis=-1)
  flat = pixels[inside]
  pixels = (pixels - flat.mean(axis=0)) / np.maximum(flat.std(axis=0), 1e-6)
  rng = np.random.default_rng(seed)
  flat = pixels[inside]
  sample = flat[rng.permutation(len(flat))[:_SAMPLES]].astype(np.float64)
  centers, _ = kmeans2(sample, num_parts, iter=_ITERATIONS, minit="++", rng=rng)
  distance = np.sum(np.square(pixels[..., None, :] - centers.astype(np.float32)), axis=-1)
  labels = np.argmin(distance, axis=-1)
  parts = np.zeros((count, size, size, num_parts + 1), np.float32)
  np.put_along_axis(parts, 1 + labels[..., None], masks[..., None], axis=-1)
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
