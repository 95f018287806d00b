"""What segmenters are fitted to: crops like the reconstruction's, their features, and batches.

Features of all images together would fill the memory (of 2000 images VGG's take 6 GB), so they are
extracted a few images at a time, and callers keep what they need.
"""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float

from umr_jax.config.settings import PartsConfig
from umr_jax.data.batching import evaluation_batches
from umr_jax.data.dataset import Split
from umr_jax.data.transforms import Crop, CropSpec
from umr_jax.models.encoder import IMAGENET_MEAN
from umr_jax.parts.cosegment import mirrored_features
from umr_jax.parts.encoder_features import train_encoder_features
from umr_jax.parts.features import Features, make_features, resolve_features
from umr_jax.parts.losses import PartBatch
from umr_jax.parts.network import STRIDE
from umr_jax.progress import tracked
from umr_jax.types import Batch

# Images that features and maps are made of at a time.
BATCH = 8
# Images that parts are learned from, at most, evenly spaced over the training set.
_LEARNED = 2000
# Pixels per side of the crops that features are made of, at most: stored images have little more.
_LARGEST = 256


class Crops(NamedTuple):
  """Crops of the images of a split, the same as the reconstruction's."""

  names: tuple[str, ...]
  images: Float[np.ndarray, "N S S 3"]
  masks: Float[np.ndarray, "N S S"]


def training_crops(split: Split, settings: PartsConfig, *, padding: float) -> Crops:
  """The crops of at most 2000 training images, without augmentation.

  Args:
    split: the training images and their silhouettes.
    settings: of the crops' size.
    padding: of the crops.
  """
  split_batches = batches(split.subsample(_LEARNED), settings.image_size, padding)
  every = [crop for _, crops in split_batches for crop in crops]
  return Crops(
    names=tuple(crop.name for crop in every),
    images=np.stack([crop.image for crop in every]),
    masks=np.stack([crop.mask for crop in every]),
  )


def batches(split: Split, image_size: int, padding: float) -> Iterator[tuple[Batch, list[Crop]]]:
  """All images of a split, a few at a time, without part maps.

  Args:
    split: of a data set.
    image_size: pixels per side of the crops.
    padding: of the crops.
  """
  return evaluation_batches(
    split, CropSpec(image_size=image_size, padding=padding), batch_size=BATCH, parts=False
  )


def feature_crops(settings: PartsConfig) -> int:
  """Pixels per side of the crops that features are made of."""
  return min(settings.feature_size, _LARGEST)


def load_features(
  crops: Callable[[], Crops], settings: PartsConfig, *, fine: bool = False
) -> Features:
  """The features that the settings name; those of the encoder are trained on the crops first.

  Args:
    crops: makes what the encoder is trained on, where it is.
    settings: name the features.
    fine: see `make_features`.
  """
  name = resolve_features(settings.features)
  if name != "encoder":
    size = settings.feature_size
    return make_features(name, file=settings.feature_file, size=size, fine=fine)
  own = crops()
  return train_encoder_features(
    own.images,
    own.masks,
    size=settings.image_size,
    steps=settings.encoder_steps,
    seed=settings.seed,
  )


def masked_features(features: Features) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """Mirror-consistent features of objects, each in front of one neutral colour.

  A network's features reach far beyond their own cell: among the factors of images as they are
  would be kinds of backgrounds.
  """

  @jax.jit
  def extract(images: jax.Array, masks: jax.Array) -> jax.Array:
    neutral = jnp.asarray(IMAGENET_MEAN, images.dtype).reshape(1, 1, 1, 3)
    shown = images * masks[..., None] + neutral * (1.0 - masks[..., None])
    return mirrored_features(features.extract, shown)

  return extract


def feature_batches(
  features: Features, split: Split, settings: PartsConfig, *, padding: float
) -> Iterator[tuple[slice, Float[np.ndarray, "n h w C"]]]:
  """Features of the images of `training_crops`, of larger crops where they are larger.

  Args:
    features: a frozen network.
    split: the training images and their silhouettes.
    settings: of the crops' size.
    padding: of the crops.

  Yields:
    Which rows of `training_crops` they are of, and their features.
  """
  began = time.monotonic()
  split = split.subsample(_LEARNED)
  extract = masked_features(features)
  done = 0
  every = batches(split, feature_crops(settings), padding)
  for batch, crops in tracked(every, "features, images", total=len(split), step=BATCH):
    rows = slice(done, done + len(crops))
    done = rows.stop
    yield rows, np.asarray(extract(batch.image, batch.mask))[: len(crops)]
  seconds = time.monotonic() - began
  logging.info("Features (%s) of %d images took %.0f s.", features.name, len(split), seconds)


def resized(maps: Float[np.ndarray, "N S S C"], size: int) -> Float[np.ndarray, "N s s C"]:
  """Square maps at another size; averages where they shrink.

  Args:
    maps: square ones.
    size: pixels per side of the result.
  """
  shape = (maps.shape[0], size, size, maps.shape[-1])
  return np.asarray(jax.image.resize(jnp.asarray(maps), shape, "linear"))


def part_batches(
  images: np.ndarray,
  masks: np.ndarray,
  targets: np.ndarray | None,
  features: np.ndarray | None,
  *,
  settings: PartsConfig,
) -> Iterator[PartBatch]:
  """Batches without end; every epoch has each image once, in another order.

  Args:
    images: as in `fit.fit_parts`.
    masks: likewise.
    targets: likewise.
    features: likewise.
    settings: of the batch size and the seed.

  Yields:
    Batches, with masks and targets at the size of the logits.
  """
  count, size = images.shape[0], images.shape[1] // STRIDE
  small = masks.reshape(count, size, STRIDE, size, STRIDE).mean(axis=(2, 4), dtype=np.float32)
  maps = None if targets is None else _resized_each(targets, size)
  rng = np.random.default_rng(settings.seed)
  batch_size, order = min(settings.batch_size, count), np.zeros(0, np.int32)
  while True:
    if len(order) < batch_size:
      order = np.concatenate([order, rng.permutation(count).astype(np.int32)])
    index, order = order[:batch_size], order[batch_size:]
    yield PartBatch(
      images=images[index].astype(np.float32),
      mask=small[index],
      index=index,
      targets=None if maps is None else maps[index],
      features=None if features is None else features[index].astype(np.float32),
    )


def _resized_each(maps: np.ndarray, size: int) -> np.ndarray:
  """As `resized`, one image at a time."""
  shape = (size, size, maps.shape[-1])
  resize = jax.jit(lambda x: jax.image.resize(x, shape, "linear"))
  return np.stack([np.asarray(resize(one.astype(np.float32))) for one in maps])
