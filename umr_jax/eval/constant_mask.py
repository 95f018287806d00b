"""The one mask that fits a category best: what a network that ignores its input can reach."""

import numpy as np
from jaxtyping import Float

from umr_jax.data.batching import evaluation_batches
from umr_jax.data.dataset import Split
from umr_jax.data.transforms import CropSpec
from umr_jax.types import checked


@checked
def best_constant_mask(masks: Float[np.ndarray, "N H W"]) -> Float[np.ndarray, "H W"]:
  """The one mask that overlaps best with a set of masks, on the mean.

  Args:
    masks: binarised at a half; usually those of the training split.

  Returns:
    The best of the mean mask's level sets, of 0 and 1.
  """
  mean = (masks > 0.5).astype(np.float32).mean(axis=0)
  candidates = [(mean > level).astype(np.float32) for level in np.linspace(0.0, 0.95, 39)]
  means = [mask_overlap(candidate, masks).mean() for candidate in candidates]
  return candidates[int(np.argmax(means))]


def mask_overlap(constant: np.ndarray, masks: np.ndarray) -> np.ndarray:
  """Hard IoU [N] of one mask with many."""
  a, b = constant > 0.5, masks > 0.5
  union = np.count_nonzero(a | b, axis=(1, 2))
  return np.count_nonzero(a & b, axis=(1, 2)) / np.maximum(union, 1)


def split_masks(split: Split, *, batch_size: int, image_size: int, padding: float) -> np.ndarray:
  """The masks [N, S, S] of a split's crops."""
  batches = evaluation_batches(
    split, CropSpec(image_size=image_size, padding=padding), batch_size=batch_size, parts=False
  )
  return np.concatenate([np.asarray(batch.mask)[np.asarray(batch.valid)] for batch, _ in batches])
