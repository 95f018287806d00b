"""From a data set without part maps to a store of them: features, factors, a network, its maps."""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float

from umr_jax.config import PartsConfig
from umr_jax.data.batching import evaluation_batches
from umr_jax.data.dataset import Dataset, Split
from umr_jax.data.part_store import PartStore, make_store
from umr_jax.data.transforms import Crop
from umr_jax.scops.clusters import cluster_maps, find_clusters
from umr_jax.scops.cosegment import factor_maps, mirrored_features
from umr_jax.scops.encoder_features import train_encoder_features
from umr_jax.scops.features import Features, make_features, resolve_features
from umr_jax.scops.fit import FitResult, Record, fit_parts, segment
from umr_jax.scops.refine import refine
from umr_jax.types import Batch

# Pictures that parts are learned from, at most, evenly spaced over the training set.
_LEARNED = 2000
# Pictures that features and maps are made of at a time.
_BATCH = 8
# Of the stored maps: pixels of the crop per pixel of the map.
_SHRINK = 2

# Crops and silhouettes -> part maps, background first: [N, S, S, P + 1].
Cut = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Crops(NamedTuple):
  """Crops of the pictures of a split, as the reconstruction sees them."""

  names: tuple[str, ...]
  images: Float[np.ndarray, "N S S 3"]
  masks: Float[np.ndarray, "N S S"]


def discover(
  dataset: Dataset,
  settings: PartsConfig,
  *,
  num_parts: int,
  padding: float,
  record: Record | None = None,
) -> PartStore:
  """Finds parts that all pictures of a data set share, without any label.

  Args:
    dataset: photographs and silhouettes; nothing else of it is looked at.
    settings: how.
    num_parts: P.
    padding: of the crops, that of the reconstruction.
    record: is given the step and the losses of the network now and then.

  Returns:
    Part maps of the training and the test pictures; only training pictures were learned from.

  Raises:
    ValueError: for features that cannot be had, or a loss that is not finite.
    FileNotFoundError: when the features' weight file is not there.
  """
  learned = learned_crops(dataset, settings, padding=padding)
  cut = learn_cut(learned, settings, num_parts=num_parts, record=record)
  return cut_dataset(cut, dataset, settings, padding=padding)


def learn_cut(
  crops: Crops, settings: PartsConfig, *, num_parts: int, record: Record | None = None
) -> Cut:
  """Learns to cut crops into parts by the method that the settings name; see `discover`."""
  if settings.method in ("color", "position"):
    clusters = find_clusters(
      crops.images,
      crops.masks,
      num_parts=num_parts,
      color=settings.method == "color",
      seed=settings.seed,
    )
    return lambda images, masks: cluster_maps(clusters, images, masks)
  features = features_of(crops, settings)
  targets = None
  if settings.method == "cosegment":
    masks = resized(crops.masks[..., None], features.shape[1])[..., 0]
    targets = factor_maps(features, masks, num_parts=num_parts, seed=settings.seed)
  fit = fit_parts(
    crops.images,
    crops.masks,
    targets=targets,
    features=features if settings.semantic else None,
    num_parts=num_parts,
    settings=settings,
    record=record,
  )
  return network_cut(fit)


def network_cut(fit: FitResult) -> Cut:
  """What a network says of crops, refined and kept inside of the masks."""

  def cut(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    probs = segment(fit, images, batch_size=_BATCH)
    return np.asarray(refine(jnp.asarray(probs), jnp.asarray(masks)))

  return cut


def learned_crops(dataset: Dataset, settings: PartsConfig, *, padding: float) -> Crops:
  """The crops of at most 2000 training pictures, without augmentation."""
  split = dataset.splits["train"].thinned(_LEARNED)
  cut = [crop for _, crops in _batches(split, settings, padding) for crop in crops]
  return Crops(
    names=tuple(crop.name for crop in cut),
    images=np.stack([crop.image for crop in cut]),
    masks=np.stack([crop.mask for crop in cut]),
  )


def cut_dataset(cut: Cut, dataset: Dataset, settings: PartsConfig, *, padding: float) -> PartStore:
  """Part maps of all pictures of a data set, at half of the crops' resolution."""
  names, squares, maps = [], [], []
  for split in dataset.splits.values():
    for batch, crops in _batches(split, settings, padding):
      found = cut(np.asarray(batch.image), np.asarray(batch.mask))[: len(crops)]
      maps.append(np.round(255.0 * resized(found, settings.image_size // _SHRINK)))
      names += [crop.name for crop in crops]
      squares += [crop.square for crop in crops]
  return make_store(names, squares, np.concatenate(maps).astype(np.uint8))


def features_of(crops: Crops, settings: PartsConfig) -> Float[np.ndarray, "N h w C"]:
  """Mirror-consistent frozen features of crops."""
  began = time.monotonic()
  features = _features(crops, settings)
  both = jax.jit(lambda images: mirrored_features(features.extract, images))
  found = []
  for start in range(0, len(crops.images), _BATCH):
    some = crops.images[start : start + _BATCH]
    padded = np.pad(some, ((0, _BATCH - len(some)), (0, 0), (0, 0), (0, 0)))
    found.append(np.asarray(both(padded))[: len(some)])
    logging.log_every_n_seconds(
      logging.INFO, "features (%s) of %d of %d pictures", 20, features.name, start, len(crops.names)
    )
  logging.info(
    "Features (%s) of %d pictures took %.0f s.",
    features.name,
    len(crops.names),
    time.monotonic() - began,
  )
  return np.concatenate(found)


def resized(maps: Float[np.ndarray, "N S S C"], size: int) -> Float[np.ndarray, "N s s C"]:
  """Square maps at another size; averages where they shrink."""
  shape = (maps.shape[0], size, size, maps.shape[-1])
  return np.asarray(jax.image.resize(jnp.asarray(maps), shape, "linear"))


def _batches(
  split: Split, settings: PartsConfig, padding: float
) -> Iterator[tuple[Batch, list[Crop]]]:
  return evaluation_batches(
    split, batch_size=_BATCH, image_size=settings.image_size, padding=padding, parts=False
  )


def _features(crops: Crops, settings: PartsConfig) -> Features:
  name = resolve_features(settings.features)
  if name != "encoder":
    return make_features(name, file=settings.feature_file, size=settings.feature_size)
  return train_encoder_features(
    crops.images,
    crops.masks,
    size=settings.image_size,
    steps=settings.encoder_steps,
    seed=settings.seed,
  )
