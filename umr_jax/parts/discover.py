"""From a data set without part maps to a store of them: features, factors, a network, its maps."""

import functools
import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from umr_jax.config.settings import PartsConfig
from umr_jax.data.dataset import Dataset
from umr_jax.data.part_store import PartStore, from_bytes
from umr_jax.parts.cosegment import (
  Factors,
  cluster_maps,
  factor_maps,
  find_clusters,
  find_factors,
  object_cells,
)
from umr_jax.parts.crops import (
  BATCH,
  feature_batches,
  load_features,
  resized,
  training_crops,
)
from umr_jax.parts.fit import Record, fit_parts
from umr_jax.parts.head import CELLS, Cells, fit_head, head_maps, part_cells
from umr_jax.parts.network import STRIDE
from umr_jax.parts.segmenter import (
  Segmenter,
  feature_segmenter,
  network_segmenter,
  segment_dataset,
)

# Cells of feature maps, over all images, that factors are found on, at most: half a gigabyte.
_CELLS = 100_000


def discover(
  dataset: Dataset,
  settings: PartsConfig,
  *,
  num_parts: int,
  padding: float,
  record: Record | None = None,
) -> PartStore:
  """Discovers parts that all images of a data set share, without any label.

  Args:
    dataset: images and silhouettes; nothing else of it is used.
    settings: how.
    num_parts: P.
    padding: of the crops, that of the reconstruction.
    record: is given the step and the losses of the network now and then.

  Returns:
    Part maps of the training and the test images; only training images are fitted to.

  Raises:
    ValueError: for features that cannot be had, or a loss that is not finite.
    FileNotFoundError: when the features' weight file is not there.
  """
  segmenter = fit_segmenter(dataset, settings, num_parts=num_parts, padding=padding, record=record)
  return segment_dataset(segmenter, dataset, settings, padding=padding)


def fit_segmenter(
  dataset: Dataset,
  settings: PartsConfig,
  *,
  num_parts: int,
  padding: float,
  record: Record | None = None,
) -> Segmenter:
  """Fits a segmenter by the method that the settings name.

  Args:
    dataset: images and silhouettes.
    settings: how.
    num_parts: P.
    padding: of the crops.
    record: receives the step and the losses of the network.
  """
  split = dataset.splits["train"]
  crops = training_crops(split, settings, padding=padding)
  if settings.method == "position":
    clusters = find_clusters(crops.masks, num_parts=num_parts, seed=settings.seed)
    return Segmenter(settings.image_size, lambda _, masks: cluster_maps(clusters, masks))
  features = load_features(lambda: crops, settings)
  extract = functools.partial(feature_batches, features, split, settings, padding=padding)
  targets = None
  if settings.method == "cosegment":
    factors = _factors(extract(), crops.masks, num_parts=num_parts, seed=settings.seed)
    if not settings.steps:
      return feature_segmenter(
        features, settings, lambda found, masks: factor_maps(factors, found, masks)
      )
    # Extracted once more rather than kept.
    maps = [factor_maps(factors, found, crops.masks[rows]) for rows, found in extract()]
    targets = np.concatenate(maps)
  fit = fit_parts(
    crops.images,
    crops.masks,
    targets=targets,
    # Batches are in random order, so that they are kept: at half precision.
    features=np.concatenate([found.astype(np.float16) for _, found in extract()])
    if settings.weights.semantic
    else None,
    num_parts=num_parts,
    settings=settings,
    record=record,
  )
  return network_segmenter(fit, settings)


def _factors(
  batches: Iterator[tuple[slice, np.ndarray]], masks: np.ndarray, *, num_parts: int, seed: int
) -> Factors:
  """Factors of the features of all images; of many images, of some cells of each batch."""
  rng, cells, lowest = np.random.default_rng(seed), [], []
  for rows, found in batches:
    most = math.ceil(_CELLS * len(found) / len(masks))
    small = resized(masks[rows, ..., None], found.shape[1])[..., 0]
    cells.append(object_cells(found, small, most=most, rng=rng))
    lowest.append(found.min(axis=(0, 1, 2)))
  return find_factors(
    np.concatenate(cells), lowest=np.min(lowest, axis=0), num_parts=num_parts, seed=seed
  )


def fit_pseudo_labels(
  dataset: Dataset,
  settings: PartsConfig,
  targets: UInt8[np.ndarray, "N S S P1"],
  *,
  padding: float,
) -> Segmenter:
  """Fits a segmenter to pseudo labels of some images: the network where there is one, or a head.

  Args:
    dataset: the images.
    settings: of the network, or without one, of the features that a linear head reads.
    targets: one map for each of `training_crops`, in 0..255 as a store keeps them, background
      first; all zeros for one without.
    padding: of the crops.

  Source: Li et al. 2020, supplementary 1 (the part network is trained on reconstructions). Departs:
    by default, without parts.steps, a linear head on frozen features is fitted, and no SCOPS anew.
  """
  split = dataset.splits["train"]
  crops = training_crops(split, settings, padding=padding)

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
    return network_segmenter(fit, settings)
  features = load_features(lambda: crops, settings, fine=True)
  rng, cells = np.random.default_rng(settings.seed), []
  known = np.asarray(targets.any(axis=(1, 2, 3)))
  # A cell of fine features is large, and of most cells nothing is known.
  for rows, found in feature_batches(features, split, settings, padding=padding):
    most = math.ceil(CELLS * float(known[rows].sum()) / max(1.0, float(known.sum())))
    cells.append(part_cells(found, shrunk(rows, found.shape[1]), most=most, rng=rng))
  head = fit_head(Cells(*(np.concatenate(column) for column in zip(*cells, strict=True))))
  return feature_segmenter(features, settings, lambda found, masks: head_maps(head, found, masks))
