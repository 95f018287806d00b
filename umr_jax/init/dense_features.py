"""The dense features of training images that views are compared by."""

import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from umr_jax.config.settings import PartsConfig
from umr_jax.data.batching import evaluation_batches
from umr_jax.data.dataset import Split
from umr_jax.data.transforms import CropSpec
from umr_jax.geometry.sampling import average_pool
from umr_jax.models.framed_images import fit_projection, project_features
from umr_jax.models.frozen import COLLECTION, FrozenEfficientNet, frozen_efficientnet
from umr_jax.parts.crops import (
  BATCH,
  batches,
  feature_crops,
  load_features,
  masked_features,
  training_crops,
)
from umr_jax.progress import tracked

# Images that the principal components are found on, at most, evenly spaced.
_PROJECTED = 200
# Pixels per side of the masks that are kept.
_MASK_SIZE = 64
# Images that the frozen encoder reads at a time.
_ENCODED = 16


class ImageMaps(NamedTuple):
  """What is known of the images, in the frames of their crops."""

  # For pose search whitened, of norm 1 on the objects at most.
  features: Float[np.ndarray, "N h w C"]
  masks: Float[np.ndarray, "N S S"]

  def rows(self, rows: slice | Int[np.ndarray, "n"]) -> "ImageMaps":
    """Those of some images."""
    return ImageMaps(self.features[rows], self.masks[rows])

  def leading(self, count: int) -> "ImageMaps":
    """With the first channels alone, which are whitened; as many as there are at most."""
    some = self.features[..., :count]
    return self._replace(
      features=some * np.float32(np.sqrt(self.features.shape[-1] / some.shape[-1]))
    )

  def projected(self, matrix: Float[np.ndarray, "C D"]) -> "ImageMaps":
    """With linear combinations of the channels."""
    return self._replace(features=self.features @ matrix)


def dense_features(split: Split, settings: PartsConfig, *, padding: float) -> ImageMaps:
  """Extracts the frozen features that parts are discovered from: their principal components.

  Args:
    split: the training images, with silhouettes.
    settings: name the features; those of the encoder are trained on the images first.
    padding: of the crops, that of the reconstruction.

  Raises:
    FileNotFoundError, ValueError: for features that cannot be had.
  """
  features = load_features(lambda: training_crops(split, settings, padding=padding), settings)
  extract = masked_features(features)
  size = feature_crops(settings)
  first = [
    (np.asarray(extract(batch.image, batch.mask))[: len(crops)], batch.mask[: len(crops)])
    for batch, crops in batches(split.subsample(_PROJECTED), size, padding)
  ]
  projection = fit_projection(*(np.concatenate(column) for column in zip(*first, strict=True)))
  maps, masks = [], []
  every = batches(split, size, padding)
  for batch, crops in tracked(every, "features of views, images", total=len(split), step=BATCH):
    count = len(crops)
    found = project_features(projection, extract(batch.image, batch.mask))
    maps.append(np.asarray(found)[:count])
    masks.append(np.asarray(average_pool(jnp.asarray(batch.mask[:count]), _MASK_SIZE)))
  return ImageMaps(np.concatenate(maps), np.concatenate(masks))


def encoder_maps(split: Split, file: pathlib.Path, *, spec: CropSpec) -> ImageMaps:
  """The maps that the network's frozen encoder makes of images, at its coarsest resolution.

  Args:
    split: images with silhouettes.
    file: the encoder's weights.
    spec: of the network's crops.

  Raises:
    ValueError: for a file of another network.
  """
  # Arguments, not constants, with which compilers are slow.
  weights = jax.device_put({COLLECTION: frozen_efficientnet(file, path=())})
  encode = jax.jit(FrozenEfficientNet().apply)
  maps, masks = [], []
  every = evaluation_batches(split, spec, batch_size=_ENCODED, parts=False)
  for batch, crops in tracked(every, "encoded, images", total=len(split), step=_ENCODED):
    maps.append(np.asarray(encode(weights, jnp.asarray(batch.image))[-1])[: len(crops)])
    masks.append(np.asarray(batch.mask)[: len(crops)])
  return ImageMaps(np.concatenate(maps), np.concatenate(masks))
