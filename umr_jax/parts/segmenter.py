"""Segmenters: from crops to part maps, refined by a CRF, and from a data set to a store of them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from umr_jax.config.settings import PartsConfig
from umr_jax.data.dataset import Dataset
from umr_jax.data.image_files import to_bytes
from umr_jax.data.part_store import PartStore, make_store
from umr_jax.parts.crops import (
  BATCH,
  batches,
  feature_crops,
  masked_features,
  resized,
)
from umr_jax.parts.features import Features
from umr_jax.parts.fit import FitResult
from umr_jax.parts.network import PartNet
from umr_jax.progress import tracked
from umr_jax.types import checked

# Images of each split that are segmented mirrored, too, to measure mirror consistency.
_MIRRORED = 64
# Of the stored maps: pixels of the crop per pixel of the map.
_SHRINK = 2
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


class Segmenter(NamedTuple):
  """A function from crops to part maps, and the size of the crops that it was fitted to."""

  size: int
  maps: Callable[[np.ndarray, np.ndarray], np.ndarray]  # crops, masks -> maps, background first


def feature_segmenter(
  features: Features,
  settings: PartsConfig,
  maps: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Segmenter:
  """Segments crops by a function of their frozen features and masks.

  Args:
    features: of the images.
    settings: of the crops.
    maps: (features, masks) to part maps, background first.
  """
  extract = masked_features(features)

  def segment_crops(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    return maps(np.asarray(extract(jnp.asarray(images), jnp.asarray(masks))), masks)

  return Segmenter(feature_crops(settings), segment_crops)


def network_segmenter(fit: FitResult, settings: PartsConfig) -> Segmenter:
  """Segments crops by a network; its maps are refined and kept inside of the masks.

  Args:
    fit: the trained network.
    settings: of the crops.
  """

  def segment_crops(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    probs = segment(fit, images, batch_size=BATCH)
    return np.asarray(refine(jnp.asarray(probs), jnp.asarray(masks)))

  return Segmenter(settings.image_size, segment_crops)


@checked
def segment(
  result: FitResult, images: Float[np.ndarray, "N S S 3"], *, batch_size: int
) -> Float[np.ndarray, "N S S P1"]:
  """Part probabilities of images: means over each image and its mirrored copy.

  Args:
    result: a trained network.
    images: RGB in [0, 1]; S is a multiple of 4.
    batch_size: images at a time; changes only memory and time.

  Returns:
    Probabilities, background first, which sum to 1 at every pixel.
  """
  variables = {k: v for k, v in result.variables.items() if k != "basis"}
  shape = (*images.shape[:3], result.net.num_parts + 1)
  probs = np.empty(shape, np.float32)
  for first in range(0, len(images), batch_size):
    some = images[first : first + batch_size].astype(np.float32)
    padded = np.pad(some, ((0, batch_size - len(some)), (0, 0), (0, 0), (0, 0)))
    probs[first : first + batch_size] = _probabilities(result.net, variables, padded)[: len(some)]
  return probs


@functools.partial(jax.jit, static_argnums=0)
def _probabilities(net: PartNet, variables: Any, images: Array) -> Array:
  both = jnp.concatenate([images, images[:, :, ::-1]])
  logits: Any = net.apply(variables, both, train=False)
  shape = (*both.shape[:3], logits.shape[-1])
  probs = jax.nn.softmax(jax.image.resize(logits, shape, "linear"), axis=-1)
  plain, mirrored = jnp.split(probs, 2)
  return 0.5 * (plain + mirrored[:, :, ::-1])


def segment_dataset(
  segmenter: Segmenter, dataset: Dataset, settings: PartsConfig, *, padding: float
) -> PartStore:
  """Part maps of all images of a data set, at half of the crops' resolution.

  Args:
    segmenter: from `discover`.
    dataset: images and silhouettes.
    settings: of the crops.
    padding: of the crops.
  """
  names, squares, maps, agreement = [], [], [], []
  for split_name, split in dataset.splits.items():
    every = batches(split, segmenter.size, padding)
    shown = tracked(every, f"parts, {split_name} images", total=len(split), step=BATCH)
    for number, (batch, crops) in enumerate(shown):
      images, masks = np.asarray(batch.image), np.asarray(batch.mask)
      found = segmenter.maps(images, masks)[: len(crops)]
      if number * BATCH < _MIRRORED:
        mirrored = segmenter.maps(images[:, :, ::-1].copy(), masks[:, :, ::-1].copy())[: len(crops)]
        agreement.append(mirror_agreement(found, mirrored))
      small = resized(found, settings.image_size // _SHRINK)
      maps.append(to_bytes(small))
      names += [crop.name for crop in crops]
      squares += [crop.square for crop in crops]
  share = float(np.mean(np.concatenate(agreement)))
  return make_store(names, squares, np.concatenate(maps), mirror_agreement=share)


@checked
def mirror_agreement(
  maps: Float[np.ndarray, "N S S P1"], mirrored: Float[np.ndarray, "N S S P1"]
) -> Float[np.ndarray, "N"]:
  """The share of each object's pixels that get the same part when the image is mirrored.

  Args:
    maps: of the images, background first.
    mirrored: of the images mirrored left to right, as they came.
  """
  found, other = np.argmax(maps, axis=-1), np.argmax(mirrored[:, :, ::-1], axis=-1)
  inside = (found > 0) & (other > 0)
  same = np.count_nonzero(inside & (found == other), axis=(1, 2))
  return same / np.maximum(np.count_nonzero(inside, axis=(1, 2)), 1)


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
