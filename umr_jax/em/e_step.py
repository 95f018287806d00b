"""The E-step: gradient steps of the network while template and canonical UV map are held fixed.

It minimises `losses.objective.total_loss` in the parameters of the network alone; equations 2 and 3
are its terms that depend on the canonical UV map.

Source: Li et al. 2020, sections 3.2 and 3.3.
"""

import functools
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
from absl import logging
from jaxtyping import PRNGKeyArray

from umr_jax.config.settings import Config
from umr_jax.data.batching import prefetch, train_batch
from umr_jax.data.dataset import Split
from umr_jax.data.transforms import CropSpec
from umr_jax.random import Purpose, run_key, run_seed
from umr_jax.train import parallel
from umr_jax.train.replay import Replay, encoded_bytes, kept_bytes, replayed_epochs
from umr_jax.train.step import Encode, Metrics, TrainStep
from umr_jax.types import Batch, EMState, TrainState, Variables


def e_step(
  train_state: TrainState,
  em_state: EMState,
  *,
  train_step: TrainStep,
  batches: Iterable[Batch],
  key: PRNGKeyArray,
  record: Callable[[Metrics], bool],
) -> TrainState:
  """Gradient steps over `batches` under a fixed EM state.

  Args:
    train_state: replicated; its memory is given to the result.
    em_state: replicated.
    train_step: the round's compiled step.
    batches: one host batch per step.
    key: of all steps; a step folds its own number into it.
    record: receives every step's (replicated) metrics; True asks to stop after this step.

  Returns:
    The replicated state after the last step.
  """
  for batch in batches:
    train_state, metrics = train_step(train_state, em_state, parallel.shard_batch(batch), key)
    if record(metrics):
      break
  return train_state


def encode_on_host(
  encode: Encode, frozen: Variables, *, seed: int
) -> Callable[[Batch, int], Batch]:
  """Augments and encodes a host batch as the training step of its number would.

  Args:
    encode: of the round, over devices.
    frozen: the frozen encoder's weights, on the host.
    seed: of the run.
  """
  held, key = parallel.replicate(frozen), run_key(seed, Purpose.TRAINING)

  def encode_batch(batch: Batch, step: int) -> Batch:
    found = encode(held, parallel.shard_batch(batch), jax.random.fold_in(key, step))
    return parallel.unshard(found)

  return encode_batch


class TrainingBatches:
  """The batches of a round, each a function of its step alone.

  So a resumed run gets what an unbroken one would have.
  """

  def __init__(
    self,
    split: Split,
    config: Config,
    *,
    target_cameras: np.ndarray | None,
    parts: bool,
    encode: Callable[[Batch, int], Batch] | None = None,
  ):
    """Reads nothing yet.

    Args:
      split: the training images.
      config: of the run.
      target_cameras: [N, 7] that come with the images, if any.
      parts: whether a loss reads part maps.
      encode: augments the batch of a step and encodes it by a frozen encoder; None without one.
    """
    self._split, self._config = split, config
    self._target_cameras, self._parts, self._encode = target_cameras, parts, encode
    self._seed = run_seed(config.train.seed, Purpose.BATCHES)

  def steps(self, start: int, stop: int) -> Iterator[Batch]:
    """The batches of some steps, prepared ahead in the background.

    Args:
      start: the first step.
      stop: one past the last.
    """
    return prefetch(self._replay.batch if self._replay else self._drawn, start, stop)

  def _drawn(self, step: int) -> Batch:
    return train_batch(
      self._split,
      CropSpec.from_config(self._config.data),
      step=step,
      seed=self._seed,
      batch_size=self._config.train.batch_size,
      parts=self._parts,
      target_cameras=self._target_cameras,
      shard=(jax.process_index(), jax.process_count()),
    )

  @functools.cached_property
  def _replay(self) -> Replay | None:
    """None where it does not pay; over several hosts an image comes to another host each time."""
    encode, train, count = self._encode, self._config.train, len(self._split)
    if encode is None or jax.process_count() > 1:
      return None
    epochs = replayed_epochs(
      count,
      visited=train.steps * train.batch_size,
      row_bytes=kept_bytes(self._drawn(0)) // train.batch_size + encoded_bytes(),
    )
    if not epochs:
      return None
    logging.info("The frozen encoder's maps of %d epochs are kept.", epochs)
    return Replay(
      lambda step: encode(self._drawn(step), step),
      count=count,
      epochs=epochs,
      seed=self._seed,
      batch_size=train.batch_size,
    )
