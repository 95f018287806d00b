"""The batches that the part network learns from."""

from collections.abc import Iterator

import jax
import numpy as np

from umr_jax.config.settings import PartsConfig
from umr_jax.parts.net import STRIDE
from umr_jax.parts.objective import PartBatch


def part_batches(
  images: np.ndarray,
  masks: np.ndarray,
  targets: np.ndarray | None,
  features: np.ndarray | None,
  *,
  settings: PartsConfig,
) -> Iterator[PartBatch]:
  """Batches without end; every epoch shows each image once, in another order."""
  count, size = images.shape[0], images.shape[1] // STRIDE
  small = masks.reshape(count, size, STRIDE, size, STRIDE).mean(axis=(2, 4), dtype=np.float32)
  maps = None if targets is None else _resized(targets, size)
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


def _resized(maps: np.ndarray, size: int) -> np.ndarray:
  """Maps at the size of the logits; averages where they are larger."""
  shape = (size, size, maps.shape[-1])
  resize = jax.jit(lambda x: jax.image.resize(x, shape, "linear"))
  return np.stack([np.asarray(resize(one.astype(np.float32))) for one in maps])
