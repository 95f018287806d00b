"""The E-step: one gradient step a batch, until it is asked to stop."""

import jax
import numpy as np

from umr_jax.em.e_step import e_step
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
