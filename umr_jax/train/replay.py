"""Augmented images and what a frozen encoder makes of them: kept, and replayed.

A frozen encoder is half of a training step, and gives the same maps for the same image. So most
epochs replay one of the last that were drawn: their augmented images, with their maps, in an order
of their own. The first epochs, and one in four after them, are drawn anew.
"""

import threading
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from umr_jax.data.batching import Visit, step_of, visits
from umr_jax.models.frozen import SEEN, FrozenEfficientNet
from umr_jax.types import Batch

# Drawn epochs that are kept at most, and the bytes that they may take.
_EPOCHS, _BYTES = 8, 1 << 30
# Of so many epochs one is drawn, once as many as are kept have been.
_PERIOD = 4
# Replaying pays in runs of this many times as many epochs as are kept.
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


def encoded_bytes() -> int:
  """The memory that the frozen encoder's maps of one image take as they are kept."""
  image = jnp.zeros((1, SEEN, SEEN, 3))
  maps, _ = jax.eval_shape(FrozenEfficientNet().init_with_output, jax.random.key(0), image)
  return sum(2 * leaf.size for leaf in jax.tree.leaves(maps))


def source_epoch(epoch: int, *, kept: int) -> int:
  """The epoch whose drawn images an epoch shows: itself, or one of the last that were drawn.

  Args:
    epoch: from 0.
    kept: drawn epochs that are kept, at least two.
  """
  if epoch < kept:
    return epoch
  since, place = divmod(epoch - kept, _PERIOD)
  # Draws are numbered; the newest is that of this period.
  draw = kept + since
  if place:
    draw -= 1 + epoch % (kept - 1)
  return draw if draw < kept else kept + (draw - kept) * _PERIOD


class Replay:
  """Training batches most of which show images that were drawn before.

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
      epochs: drawn ones that are kept; see `source_epoch`.
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
      self._row(visit._replace(epoch=source_epoch(visit.epoch, kept=self._epochs)))
      for visit in visits(self._count, step=step, seed=self._seed, batch_size=self._batch_size)
    ]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
    return jax.tree.map(_single, stacked)

  def _row(self, visit: Visit) -> Batch:
    """One row of a drawn epoch."""
    with self._lock:
      if visit not in self._rows:
        order = {"seed": self._seed, "batch_size": self._batch_size}
        step = step_of(visit, self._count, **order)
        drawn = jax.tree.map(_half, jax.device_get(self._draw(step)))
        for row, each in enumerate(visits(self._count, step=step, **order)):
          if source_epoch(each.epoch, kept=self._epochs) == each.epoch:
            self._rows[each] = jax.tree.map(lambda leaf, row=row: leaf[row], drawn)
      found = self._rows[visit]
      # The oldest first; one epoch more than is kept, since steps ahead begin the next.
      while len(self._rows) > (self._epochs + 1) * self._count:
        del self._rows[next(iter(self._rows))]
      return found


def _half(leaf: np.ndarray) -> np.ndarray:
  """Maps in half the memory; cameras, numbers and flags as they are."""
  return leaf.astype(np.float16) if leaf.ndim > 2 and leaf.dtype == np.float32 else leaf


def _single(leaf: np.ndarray) -> np.ndarray:
  return leaf.astype(np.float32) if leaf.dtype == np.float16 else leaf
