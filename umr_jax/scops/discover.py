"""From a data set without part maps to a store of them: features, factors, a network, its maps."""

import dataclasses
import math
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
from umr_jax.models.encoder import IMAGENET_MEAN
from umr_jax.scops.clusters import cluster_maps, find_clusters
from umr_jax.scops.cosegment import factor_maps, find_factors, mirrored_features
from umr_jax.scops.encoder_features import train_encoder_features
from umr_jax.scops.features import Features, make_features, resolve_features
from umr_jax.scops.fit import FitResult, Record, fit_parts, segment
from umr_jax.scops.head import CELLS, Cells, fit_head, head_maps, part_cells
from umr_jax.scops.mirror import mirror_agreement
from umr_jax.scops.refine import refine
from umr_jax.types import Batch

# Pictures that parts are learned from, at most, evenly spaced over the training set.
_LEARNED = 2000
# Pictures that features and maps are made of at a time.
_BATCH = 8
# Pixels per side of the crops that features are made of, at most: stored pictures have little more.
_LARGEST = 256
# Pictures of each split that are cut mirrored, too, to measure whether that changes their parts.
_MIRRORED = 64
# Of the stored maps: pixels of the crop per pixel of the map.
_SHRINK = 2


class Cut(NamedTuple):
  """A way to cut crops into parts, and the size of the crops that it was learned from."""

  size: int
  maps: Callable[[np.ndarray, np.ndarray], np.ndarray]  # crops, masks -> maps, background first


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
  cut = learn_cut(dataset, settings, num_parts=num_parts, padding=padding, record=record)
  return cut_dataset(cut, dataset, settings, padding=padding)


def learn_cut(
  dataset: Dataset,
  settings: PartsConfig,
  *,
  num_parts: int,
  padding: float,
  record: Record | None = None,
) -> Cut:
  """Learns to cut crops into parts by the method that the settings name; see `discover`."""
  crops = learned_crops(dataset, settings, padding=padding)
  if settings.method in ("color", "position"):
    clusters = find_clusters(
      crops.images,
      crops.masks,
      num_parts=num_parts,
      color=settings.method == "color",
      seed=settings.seed,
    )
    return Cut(settings.image_size, lambda images, masks: cluster_maps(clusters, images, masks))
  features = make_or_train(crops, settings)
  found = features_of(features, dataset, settings, padding=padding)
  targets = None
  if settings.method == "cosegment":
    masks = resized(crops.masks[..., None], found.shape[1])[..., 0]
    factors = find_factors(found, masks, num_parts=num_parts, seed=settings.seed)
    if not settings.steps:
      return features_cut(
        features, settings, lambda found, masks: factor_maps(factors, found, masks)
      )
    targets = factor_maps(factors, found, crops.masks)
  fit = fit_parts(
    crops.images,
    crops.masks,
    targets=targets,
    features=found if settings.semantic else None,
    num_parts=num_parts,
    settings=settings,
    record=record,
  )
  return network_cut(fit, settings)


def features_cut(
  features: Features,
  settings: PartsConfig,
  maps: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Cut:
  """What frozen features say of crops, by a function of features and masks."""
  look = alone(features)

  def cut(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    return maps(np.asarray(look(jnp.asarray(images), jnp.asarray(masks))), masks)

  return Cut(_feature_crops(settings), cut)


def taught_cut(
  dataset: Dataset,
  settings: PartsConfig,
  targets: Float[np.ndarray, "N S S P1"],
  *,
  padding: float,
) -> Cut:
  """Learns to cut crops into parts from maps of some: by the network where there is one.

  Args:
    dataset: the pictures.
    settings: of the network, or without one, of the features that a linear head reads.
    targets: one map for each of `learned_crops`, background first; all zeros for one without.
    padding: of the crops.

  Source: Li et al. 2020, supplementary 1 (the part network is taught by reconstructions).
  """
  crops = learned_crops(dataset, settings, padding=padding)
  if settings.steps:
    fit = fit_parts(
      crops.images,
      crops.masks,
      targets=targets,
      features=None,
      num_parts=targets.shape[-1] - 1,
      settings=dataclasses.replace(settings, semantic=0.0, supervision=1.0),
    )
    return network_cut(fit, settings)
  features = make_or_train(crops, settings, fine=True)
  rng, cells = np.random.default_rng(settings.seed), []
  known = np.asarray(targets.any(axis=(1, 2, 3)))
  begun = 0
  # A cell of fine features is large, and of most cells nothing is known.
  for found in _feature_batches(features, dataset, settings, padding=padding):
    rows = slice(begun, begun + len(found))
    begun += len(found)
    most = math.ceil(CELLS * float(known[rows].sum()) / max(1.0, float(known.sum())))
    cells.append(part_cells(found, resized(targets[rows], found.shape[1]), most=most, rng=rng))
  head = fit_head(Cells(*(np.concatenate(column) for column in zip(*cells, strict=True))))
  return features_cut(features, settings, lambda found, masks: head_maps(head, found, masks))


def network_cut(fit: FitResult, settings: PartsConfig) -> Cut:
  """What a network says of crops, refined and kept inside of the masks."""

  def cut(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    probs = segment(fit, images, batch_size=_BATCH)
    return np.asarray(refine(jnp.asarray(probs), jnp.asarray(masks)))

  return Cut(settings.image_size, cut)


def learned_crops(dataset: Dataset, settings: PartsConfig, *, padding: float) -> Crops:
  """The crops of at most 2000 training pictures, without augmentation."""
  split = dataset.splits["train"].thinned(_LEARNED)
  cut = [crop for _, crops in _batches(split, settings.image_size, padding) for crop in crops]
  return Crops(
    names=tuple(crop.name for crop in cut),
    images=np.stack([crop.image for crop in cut]),
    masks=np.stack([crop.mask for crop in cut]),
  )


def cut_dataset(cut: Cut, dataset: Dataset, settings: PartsConfig, *, padding: float) -> PartStore:
  """Part maps of all pictures of a data set, at half of the crops' resolution."""
  names, squares, maps, agreement = [], [], [], []
  total = sum(len(split) for split in dataset.splits.values())
  for split in dataset.splits.values():
    for number, (batch, crops) in enumerate(_batches(split, cut.size, padding)):
      images, masks = np.asarray(batch.image), np.asarray(batch.mask)
      found = cut.maps(images, masks)[: len(crops)]
      if number * _BATCH < _MIRRORED:
        mirrored = cut.maps(images[:, :, ::-1].copy(), masks[:, :, ::-1].copy())[: len(crops)]
        agreement.append(mirror_agreement(found, mirrored))
      small = resized(found, settings.image_size // _SHRINK)
      maps.append(np.round(255.0 * small).astype(np.uint8))
      names += [crop.name for crop in crops]
      squares += [crop.square for crop in crops]
      logging.log_every_n_seconds(
        logging.INFO, "cut into parts: picture %d of %d", 10, len(names), total
      )
  share = float(np.mean(np.concatenate(agreement)))
  return make_store(names, squares, np.concatenate(maps), mirror_agreement=share)


def alone(features: Features) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """Mirror-consistent features of objects, each in front of one neutral colour.

  A network's features reach far beyond their own cell: among the factors of photographs as they are
  would be kinds of backgrounds.
  """

  @jax.jit
  def look(images: jax.Array, masks: jax.Array) -> jax.Array:
    neutral = jnp.asarray(IMAGENET_MEAN, images.dtype).reshape(1, 1, 1, 3)
    shown = images * masks[..., None] + neutral * (1.0 - masks[..., None])
    return mirrored_features(features.extract, shown)

  return look


def features_of(
  features: Features, dataset: Dataset, settings: PartsConfig, *, padding: float
) -> Float[np.ndarray, "N h w C"]:
  """Features of the pictures of `learned_crops`, of larger crops where they are larger."""
  return np.concatenate(list(_feature_batches(features, dataset, settings, padding=padding)))


def _feature_batches(
  features: Features, dataset: Dataset, settings: PartsConfig, *, padding: float
) -> Iterator[Float[np.ndarray, "n h w C"]]:
  began = time.monotonic()
  split = dataset.splits["train"].thinned(_LEARNED)
  look = alone(features)
  size = _feature_crops(settings)
  for batch, crops in _batches(split, size, padding):
    yield np.asarray(look(batch.image, batch.mask))[: len(crops)]
    logging.log_every_n_seconds(
      logging.INFO, "features (%s), picture %d of %d", 20, features.name, batch.index[0], len(split)
    )
  seconds = time.monotonic() - began
  logging.info("Features (%s) of %d pictures took %.0f s.", features.name, len(split), seconds)


def resized(maps: Float[np.ndarray, "N S S C"], size: int) -> Float[np.ndarray, "N s s C"]:
  """Square maps at another size; averages where they shrink."""
  shape = (maps.shape[0], size, size, maps.shape[-1])
  return np.asarray(jax.image.resize(jnp.asarray(maps), shape, "linear"))


def _batches(split: Split, image_size: int, padding: float) -> Iterator[tuple[Batch, list[Crop]]]:
  return evaluation_batches(
    split, batch_size=_BATCH, image_size=image_size, padding=padding, parts=False
  )


def _feature_crops(settings: PartsConfig) -> int:
  return min(settings.feature_size, _LARGEST)


def make_or_train(crops: Crops, settings: PartsConfig, *, fine: bool = False) -> Features:
  """The features that the settings name; those of the encoder are trained on the crops first."""
  name = resolve_features(settings.features)
  if name != "encoder":
    size = settings.feature_size
    return make_features(name, file=settings.feature_file, size=size, fine=fine)
  return train_encoder_features(
    crops.images,
    crops.masks,
    size=settings.image_size,
    steps=settings.encoder_steps,
    seed=settings.seed,
  )
