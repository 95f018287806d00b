"""The E-step: one gradient step a batch, until it is asked to stop."""

import jax
import numpy as np
import pytest

from tests.tiny import tiny_config
from umr_jax.data.dataset import load_dataset
from umr_jax.em.e_step import TrainingBatches, e_step
from umr_jax.train import parallel


def count(train_state, em_state, batch, key):
  del key
  return train_state + em_state * batch.sum(), {"rows": batch.sum()}


def steps_taken(*, stop_after):
  """The state after some of four batches, and what was recorded."""
  recorded = []

  def record(metrics):
    recorded.append(float(metrics["rows"][0]))
    return len(recorded) == stop_after

  state = e_step(
    parallel.replicate(np.float32(0.0)),
    parallel.replicate(np.float32(10.0)),
    train_step=parallel.parallel_step(count, donate=True),
    batches=[np.full(4, i, np.float32) for i in (1, 2, 3, 4)],
    key=jax.random.key(0),
    record=record,
  )
  return float(parallel.unreplicate(state)), recorded


def test_every_batch_is_a_step_under_the_same_em_state():
  assert steps_taken(stop_after=None) == (100.0, [1.0, 2.0, 3.0, 4.0])


def test_the_step_that_asks_to_stop_is_the_last():
  assert steps_taken(stop_after=2) == (30.0, [1.0, 2.0])


@pytest.mark.parametrize(("steps", "is_replayed"), [(200, True), (6, False)])
def test_long_runs_of_few_images_encode_few_batches(tmp_path, steps, is_replayed):
  config = tiny_config(tmp_path, steps=steps)
  encoded = []

  def encode(batch, step):
    encoded.append(step)
    return batch.replace(encoded=(np.full((4, 3, 3, 2), step, np.float32),))

  split = load_dataset(config.data).splits["train"]
  batches = TrainingBatches(split, config, target_cameras=None, parts=True, encode=encode)
  found = [*batches.steps(0, 40), *batches.steps(40, 90)]
  assert [batch.image.shape for batch in found] == [(4, 64, 64, 3)] * 90
  assert all((batch.encoded is not None) == is_replayed for batch in found)
  assert len(encoded) == len(set(encoded))
  assert 0 < len(encoded) < 45 if is_replayed else not encoded


def test_without_an_encoder_batches_are_those_of_their_steps(tmp_path):
  config = tiny_config(tmp_path, steps=200)
  split = load_dataset(config.data).splits["train"]
  batches = TrainingBatches(split, config, target_cameras=np.ones((12, 7)), parts=False)
  one, other = list(batches.steps(0, 8)), list(batches.steps(5, 8))
  np.testing.assert_array_equal(one[5].image, other[0].image)
  assert one[5].parts is None and one[5].target_camera.shape == (4, 7)
