"""Replayed epochs: the first are drawn, later ones take their rows again, whatever is resumed."""

import numpy as np
import pytest

from umr_jax.data.batching import step_of, visits
from umr_jax.train.replay import (
  Replay,
  encoded_bytes,
  kept_bytes,
  replayed_epochs,
  source_epoch,
)
from umr_jax.types import Batch

COUNT, EPOCHS, SEED, SIZE = 10, 3, 5, 4
ORDER = {"seed": SEED, "batch_size": SIZE}


def drawn_batch(step):
  """Every row says which image it is of, and in which step it was drawn."""
  numbers = np.array([visit.number for visit in visits(COUNT, step=step, **ORDER)], np.int32)
  cells = np.broadcast_to(np.float32(step), (SIZE, 2, 2))
  return Batch(
    image=np.repeat(cells[..., None], 3, axis=-1),
    mask=cells,
    barrier=cells,
    index=numbers,
    valid=np.ones(SIZE, bool),
    target_camera=np.full((SIZE, 7), 1.0 / 3.0, np.float32),
    encoded=(cells[..., None], cells[..., None]),
  )


@pytest.fixture
def replay():
  drawn = []

  def draw(step):
    drawn.append(step)
    return drawn_batch(step)

  return Replay(draw, count=COUNT, epochs=EPOCHS, **ORDER), drawn


def same(one, other):
  for name in ("image", "mask", "index", "target_camera"):
    np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
  np.testing.assert_array_equal(one.encoded[1], other.encoded[1])


def test_the_step_of_a_visit_is_the_one_whose_batch_has_it():
  for step in range(12):
    for visit in visits(COUNT, step=step, **ORDER):
      assert step_of(visit, COUNT, **ORDER) == step


def test_the_first_epochs_are_as_they_are_drawn(replay):
  for step in range(COUNT * EPOCHS // SIZE):
    batch = replay[0].batch(step)
    same(batch, drawn_batch(step))
    assert batch.image.dtype == np.float32


def test_one_epoch_in_four_is_drawn_and_the_others_show_the_last_draws():
  sources = [source_epoch(epoch, kept=EPOCHS) for epoch in range(200)]
  drawn = [epoch for epoch, source in enumerate(sources) if source == epoch]
  assert drawn == [0, 1, 2, *range(3, 200, 4)]
  for epoch, source in enumerate(sources):
    recent = [each for each in drawn if each <= epoch][-EPOCHS:]
    assert source in recent
  # All that are kept take part.
  assert len(set(sources[100:140])) >= 10


def test_later_epochs_are_in_their_own_order_and_draw_little(replay):
  batches, drawn = replay
  for step in range(60):
    batch = batches.batch(step)
    expected = visits(COUNT, step=step, **ORDER)
    assert batch.index.tolist() == [visit.number for visit in expected]
    for row, visit in enumerate(expected):
      first = visit._replace(epoch=source_epoch(visit.epoch, kept=EPOCHS))
      assert batch.mask[row, 0, 0] == step_of(first, COUNT, **ORDER)
  assert len(drawn) == len(set(drawn)) < 35
  assert len(batches._rows) <= (EPOCHS + 1) * COUNT


def test_a_resumed_run_gets_the_batches_of_an_unbroken_one(replay):
  resumed = Replay(drawn_batch, count=COUNT, epochs=EPOCHS, **ORDER)
  for step in range(60):
    batch = replay[0].batch(step)
    if step >= 33:
      same(resumed.batch(step), batch)


@pytest.mark.parametrize(
  ("visited", "row_bytes", "epochs"),
  [
    (48000, 400_000, 7),  # as many as memory holds
    (48000, 1000, 8),  # never more
    (4000, 400_000, 0),  # a short run visits few twice
    (48000, 1_500_000, 0),  # one epoch alone would have each image look the same forever
  ],
)
def test_replaying_pays_for_long_runs_of_few_images(visited, row_bytes, epochs):
  assert replayed_epochs(360, visited=visited, row_bytes=row_bytes) == epochs


def test_what_an_image_takes_is_known_before_it_is_encoded():
  # The maps of FrozenEfficientNet, in half precision.
  assert encoded_bytes() == 2 * (48 * 48 * 24 + 24 * 24 * 40 + 12 * 12 * 112)
  batch = drawn_batch(0)
  maps = 2 * (5 + 2) * SIZE * 2 * 2  # image, mask, barrier, and two maps
  assert kept_bytes(batch) == maps + SIZE * (4 + 1 + 7 * 4)
