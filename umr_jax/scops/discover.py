"""From a data set without part maps to a store of them: features, factors, a network, clean maps."""

import dataclasses
from collections.abc import Callable
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
from umr_jax.scops.clusters import cluster_parts
from umr_jax.scops.cosegment import Extract, part_targets_of
from umr_jax.scops.encoder_features import train_encoder_features
from umr_jax.scops.features import Features, make_features, resolve_features
from umr_jax.scops.fit import FitResult, Record, fit_parts, segment
from umr_jax.scops.refine import refine

# Pictures that the network learns from, at most, evenly spaced over the training set.
_LEARNED = 2000
# Pictures that features and maps are made of at a time.
_BATCH = 8
# Of the stored maps: pixels of the crop per pixel of the map.
_SHRINK = 2


class Crops(NamedTuple):
  """Crops of the pictures of a split, as the reconstruction sees them."""

  names: tuple[str, ...]
  squares: list[tuple[float, float, float]]
  images: Float[np.ndarray, "N S S 3"]
  masks: Float[np.ndarray, "N S S"]


def read_crops(split: Split, *, image_size: int, padding: float) -> Crops:
  """Every picture's crop, in order and without augmentation."""
  batches = evaluation_batches(
    split, batch_size=32, image_size=image_size, padding=padding, parts=False
  )
  cut = [crop for _, crops in batches for crop in crops]
  return Crops(
    names=tuple(crop.name for crop in cut),
    squares=[crop.square for crop in cut],
    images=np.stack([crop.image for crop in cut]),
    masks=np.stack([crop.mask for crop in cut]),
  )


@dataclasses.dataclass(frozen=True, eq=False)
class Discovery:
  """Parts of all pictures of a data set, and the network that finds them in others."""

  store: PartStore
  fit: FitResult | None  # None where the parts are clusters


def discover(
  dataset: Dataset,
  settings: PartsConfig,
  *,
  num_parts: int,
  padding: float,
  record: Record | None = None,
) -> Discovery:
  """Finds parts that all pictures of a data set share, without any label.

  Args:
    dataset: photographs and silhouettes; nothing else of it is looked at.
    settings: how.
    num_parts: P.
    padding: of the crops, that of the reconstruction.
    record: is given the step and the losses of the network now and then.

  Returns:
    Part maps of the training and the test pictures. Only training pictures were learned from.

  Raises:
    ValueError, FileNotFoundError: for features that cannot be had; and see `fit_parts`.
  """
  size = settings.image_size
  crops = [
    read_crops(split, image_size=size, padding=padding)
    for split in dataset.splits.values()
    if len(split)
  ]
  if settings.method in ("color", "position"):
    everything = _join(crops)
    maps = cluster_parts(
      everything.images,
      everything.masks,
      num_parts=num_parts,
      color=settings.method == "color",
      seed=settings.seed,
    )
    return Discovery(_store(everything, maps), None)
  learned = _thinned(crops[0])
  fit = learn_parts(learned, settings, num_parts=num_parts, record=record)
  everything = _join(crops)
  return Discovery(segment_crops(fit, everything), fit)
