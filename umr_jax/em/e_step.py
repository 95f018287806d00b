"""The E-step: gradient steps of the network while template and canonical UV map are held fixed.

It minimises `losses.objective.total_loss` in the parameters of the network alone; equations 2 and 3
are its terms that depend on the canonical UV map.

Source: Li et al. 2020, sections 3.2 and 3.3.
"""

from collections.abc import Callable, Iterable, Iterator

from jaxtyping import PRNGKeyArray

from umr_jax.data.batching import prefetch, train_batch
from umr_jax.data.dataset import Split
from umr_jax.data.transforms import CropSpec
from umr_jax.train import parallel
from umr_jax.train.step import Metrics, TrainStep
from umr_jax.types import Batch, EMState, TrainState


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


def training_batches(
  split: Split,
  spec: CropSpec,
  em_state: EMState,
  *,
  steps: tuple[int, int],
  seed: int,
  batch_size: int,
  parts: bool,
  shard: tuple[int, int],
) -> Iterator[Batch]:
  """The batches of some steps, prepared ahead in the background.

  A batch is a function of the seed and the step alone, so that a resumed run gets what an unbroken
  one would have.

  Args:
    split: the training images.
    spec: of the crops, with their augmentation.
    em_state: with the target cameras that come with the images, if any.
    steps: the first, and one past the last.
    seed: of the order of images and of their augmentation.
    batch_size: images over all hosts.
    parts: whether a loss reads part maps.
    shard: (index, count) of the host.
  """

  def batch_of(step: int) -> Batch:
    return train_batch(
      split,
      spec,
      step=step,
      seed=seed,
      batch_size=batch_size,
      parts=parts,
      target_cameras=em_state.target_cameras,
      shard=shard,
    )

  return prefetch(batch_of, *steps)
