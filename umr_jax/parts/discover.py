"""From a data set without part maps to a store of them: features, factors, a network, its maps."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import UInt8

from umr_jax.config.settings import PartsConfig
from umr_jax.data.dataset import Dataset
from umr_jax.data.part_store import PartStore, from_bytes, make_store, to_bytes
from umr_jax.parts.clusters import cluster_maps, find_clusters
from umr_jax.parts.cosegment import Factors, factor_maps, find_factors, inside_cells
from umr_jax.parts.crops import (
  BATCH,
  alone,
  batches,
  feature_batches,
  feature_crops,
  learned_crops,
  make_or_train,
  resized,
)
from umr_jax.parts.features import Features
from umr_jax.parts.fit import FitResult, Record, fit_parts, segment
from umr_jax.parts.head import CELLS, Cells, fit_head, head_maps, part_cells
from umr_jax.parts.mirror import mirror_agreement
from umr_jax.parts.net import STRIDE
from umr_jax.parts.refine import refine

# Cells of feature maps, over all pictures, that factors are found on, at most: half a gigabyte.
_CELLS = 100_000
# Pictures of each split that are cut mirrored, too, to measure whether that changes their parts.
_MIRRORED = 64
# Of the stored maps: pixels of the crop per pixel of the map.
_SHRINK = 2


class Cut(NamedTuple):
  """A way to cut crops into parts, and the size of the crops that it was learned from."""

  size: int
  maps: Callable[[np.ndarray, np.ndarray], np.ndarray]  # crops, masks -> maps, background first


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
  if settings.method == "position":
    clusters = find_clusters(crops.masks, num_parts=num_parts, seed=settings.seed)
    return Cut(settings.image_size, lambda _, masks: cluster_maps(clusters, masks))
  features = make_or_train(crops, settings)
  look = functools.partial(feature_batches, features, dataset, settings, padding=padding)
  targets = None
  if settings.method == "cosegment":
    factors = _factors(look(), crops.masks, num_parts=num_parts, seed=settings.seed)
    if not settings.steps:
      return features_cut(
        features, settings, lambda found, masks: factor_maps(factors, found, masks)
      )
    # Looked at once more rather than kept.
    maps = [factor_maps(factors, found, crops.masks[rows]) for rows, found in look()]
    targets = np.concatenate(maps)
  fit = fit_parts(
    crops.images,
    crops.masks,
    targets=targets,
    # The network meets them in any order, so that they are kept: at half the size.
    features=np.concatenate([found.astype(np.float16) for _, found in look()])
    if settings.weights.semantic
    else None,
    num_parts=num_parts,
    settings=settings,
    record=record,
  )
  return network_cut(fit, settings)


def _factors(
  looks: Iterator[tuple[slice, np.ndarray]], masks: np.ndarray, *, num_parts: int, seed: int
) -> Factors:
  """Factors of the features of all pictures; of many pictures, of some cells of each batch."""
  rng, cells, lowest = np.random.default_rng(seed), [], []
  for rows, found in looks:
    most = math.ceil(_CELLS * len(found) / len(masks))
    small = resized(masks[rows, ..., None], found.shape[1])[..., 0]
    cells.append(inside_cells(found, small, most=most, rng=rng))
    lowest.append(found.min(axis=(0, 1, 2)))
  return find_factors(
    np.concatenate(cells), lowest=np.min(lowest, axis=0), num_parts=num_parts, seed=seed
  )


def features_cut(
  features: Features,
  settings: PartsConfig,
  maps: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Cut:
  """What frozen features say of crops, by a function of features and masks."""
  look = alone(features)

  def cut(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    return maps(np.asarray(look(jnp.asarray(images), jnp.asarray(masks))), masks)

  return Cut(feature_crops(settings), cut)


def taught_cut(
  dataset: Dataset,
  settings: PartsConfig,
  targets: UInt8[np.ndarray, "N S S P1"],
  *,
  padding: float,
) -> Cut:
  """Learns to cut crops into parts from maps of some: by the network where there is one.

  Args:
    dataset: the pictures.
    settings: of the network, or without one, of the features that a linear head reads.
    targets: one map for each of `learned_crops`, in 0..255 as a store keeps them, background first;
      all zeros for one without.
    padding: of the crops.

  Source: Li et al. 2020, supplementary 1 (the part network is taught by reconstructions). Departs:
    by default, without parts.steps, a linear head on frozen features is taught, and no SCOPS anew.
  """
  crops = learned_crops(dataset, settings, padding=padding)

  def shrunk(rows: slice, size: int) -> np.ndarray:
    return resized(from_bytes(targets[rows]), size)

  if settings.steps:
    size = settings.image_size // STRIDE
    begins = range(0, len(targets), BATCH)
    fit = fit_parts(
      crops.images,
      crops.masks,
      targets=np.concatenate([shrunk(slice(i, i + BATCH), size) for i in begins]),
      features=None,
      num_parts=targets.shape[-1] - 1,
      settings=settings,
      weights=settings.weights._replace(semantic=0.0, supervision=1.0),
    )
    return network_cut(fit, settings)
  features = make_or_train(crops, settings, fine=True)
  rng, cells = np.random.default_rng(settings.seed), []
  known = np.asarray(targets.any(axis=(1, 2, 3)))
  # A cell of fine features is large, and of most cells nothing is known.
  for rows, found in feature_batches(features, dataset, settings, padding=padding):
    most = math.ceil(CELLS * float(known[rows].sum()) / max(1.0, float(known.sum())))
    cells.append(part_cells(found, shrunk(rows, found.shape[1]), most=most, rng=rng))
  head = fit_head(Cells(*(np.concatenate(column) for column in zip(*cells, strict=True))))
  return features_cut(features, settings, lambda found, masks: head_maps(head, found, masks))


def network_cut(fit: FitResult, settings: PartsConfig) -> Cut:
  """What a network says of crops, refined and kept inside of the masks."""

  def cut(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    probs = segment(fit, images, batch_size=BATCH)
    return np.asarray(refine(jnp.asarray(probs), jnp.asarray(masks)))

  return Cut(settings.image_size, cut)


def cut_dataset(cut: Cut, dataset: Dataset, settings: PartsConfig, *, padding: float) -> PartStore:
  """Part maps of all pictures of a data set, at half of the crops' resolution."""
  names, squares, maps, agreement = [], [], [], []
  total = sum(len(split) for split in dataset.splits.values())
  for split in dataset.splits.values():
    for number, (batch, crops) in enumerate(batches(split, cut.size, padding)):
      images, masks = np.asarray(batch.image), np.asarray(batch.mask)
      found = cut.maps(images, masks)[: len(crops)]
      if number * BATCH < _MIRRORED:
        mirrored = cut.maps(images[:, :, ::-1].copy(), masks[:, :, ::-1].copy())[: len(crops)]
        agreement.append(mirror_agreement(found, mirrored))
      small = resized(found, settings.image_size // _SHRINK)
      maps.append(to_bytes(small))
      names += [crop.name for crop in crops]
      squares += [crop.square for crop in crops]
      logging.log_every_n_seconds(
        logging.INFO, "cut into parts: picture %d of %d", 10, len(names), total
      )
  share = float(np.mean(np.concatenate(agreement)))
  return make_store(names, squares, np.concatenate(maps), mirror_agreement=share)
