"""Augmented images and what a frozen encoder makes of them: drawn a few times, then replayed.

A frozen encoder is half of a training step, and gives the same maps for the same image. So the
augmentations of an image are drawn in its first few epochs alone; each is kept with its maps, and
later epochs take these in turn, in their own order.
"""

import threading
from collections.abc import Callable

import jax
import numpy as np

from umr_jax.data.batching import Visit, step_of, visits
from umr_jax.types import Batch

# Epochs whose augmentations are kept at most, and the bytes that they may take.
_EPOCHS, _BYTES = 8, 1 << 30
# Replaying pays if every image is visited this many times as often as it is drawn.
_WORTH = 2


def replayed_epochs(count: int, *, visited: int, row_bytes: int) -> int:
  """How many epochs to keep; 0 where replaying does not pay, or memory does not hold two.

  Args:
    count: images of the split.
    visited: images of all training batches together.
    row_bytes: of one image as it is kept.
  """
  kept = min(_EPOCHS, _BYTES // (count * row_bytes))
  return kept if kept > 1 and visited >= _WORTH * kept * count else 0


def kept_bytes(batch: Batch) -> int:
  """The memory that a batch takes as it is kept."""
  return sum(_half(np.asarray(leaf)).nbytes for leaf in jax.tree.leaves(batch))


class Replay:
  """The training batches of some augmented epochs, again and again.

  A batch is a function of the step alone: a resumed run draws again what it lacks.
  """

  def __init__(
    self,
    draw: Callable[[int], Batch],
    *,
    count: int,
    epochs: int,
    seed: int,
    batch_size: int,
  ):
    """Draws nothing yet.

    Args:
      draw: the batch of a step, augmented and encoded, on the host.
      count: images of the split.
      epochs: that are kept.
      seed: of the order of images.
      batch_size: of all batches.
    """
    self._draw, self._count, self._epochs = draw, count, epochs
    self._seed, self._batch_size = seed, batch_size
    self._rows: dict[Visit, Batch] = {}
    self._lock = threading.Lock()

  def batch(self, step: int) -> Batch:
    """The batch of a step; may be called from many threads.

    Args:
      step: from 0.
    """
    rows = [
      self._row(Visit(visit.epoch % self._epochs, visit.number))
      for visit in visits(self._count, step=step, seed=self._seed, batch_size=self._batch_size)
    ]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
    return jax.tree.map(_single, stacked)

  def _row(self, visit: Visit) -> Batch:
    with self._lock:
      if visit not in self._rows:
        order = {"seed": self._seed, "batch_size": self._batch_size}
        step = step_of(visit, self._count, **order)
        drawn = jax.tree.map(_half, jax.device_get(self._draw(step)))
        for row, each in enumerate(visits(self._count, step=step, **order)):
          if each.epoch < self._epochs:
            self._rows[each] = jax.tree.map(lambda leaf, row=row: leaf[row], drawn)
      return self._rows[visit]


def _half(leaf: np.ndarray) -> np.ndarray:
  """Maps in half the memory; cameras, numbers and flags as they are."""
  return leaf.astype(np.float16) if leaf.ndim > 2 and leaf.dtype == np.float32 else leaf


def _single(leaf: np.ndarray) -> np.ndarray:
  return leaf.astype(np.float32) if leaf.dtype == np.float16 else leaf
