"""Batches are a function of (seed, step); evaluation sees every image once; prefetching."""

import dataclasses
import itertools
import threading

import numpy as np
import pytest

from umr_jax.data.batching import evaluation_batches, prefetch, train_batch
from umr_jax.data.dataset import Split
from umr_jax.data.synthetic import render_image
from umr_jax.data.synthetic_bird import KEYPOINT_FLIP
from umr_jax.data.transforms import CropSpec, crop, square_box

SPEC = CropSpec(image_size=32, padding=0.05, jitter=0.05, mirror=True)
SETTINGS = dict(spec=SPEC, seed=0, batch_size=4)
FIELDS = ("image", "mask", "barrier", "index", "valid", "parts")


@pytest.fixture(scope="module")
def split():
  examples = [render_image(seed=0, split="train", index=index).example for index in range(6)]
  return Split(examples, range(6), keypoint_flip=KEYPOINT_FLIP)


def _equal(a, b):
  return all(np.array_equal(getattr(a, field), getattr(b, field)) for field in FIELDS)


def test_a_batch_has_the_promised_shapes_and_ranges(split):
  batch = train_batch(split, step=0, **SETTINGS)
  assert batch.image.shape == (4, 32, 32, 3) and batch.image.dtype == np.float32
  assert batch.mask.shape == batch.barrier.shape == (4, 32, 32)
  assert batch.parts.shape == (4, 32, 32, 5)
  assert batch.index.dtype == np.int32 and batch.valid.all()
  for field in ("image", "mask", "barrier", "parts"):
    values = getattr(batch, field)
    assert values.dtype == np.float32 and values.min() >= 0.0 and values.max() <= 1.0 + 1e-6
  np.testing.assert_allclose(batch.parts.sum(axis=-1), 1.0, atol=1e-5)


def test_a_step_always_gives_the_same_batch_and_another_step_another(split):
  first = train_batch(split, step=7, **SETTINGS)
  assert _equal(first, train_batch(split, step=7, **SETTINGS))
  assert not _equal(first, train_batch(split, step=8, **SETTINGS))
  assert not _equal(first, train_batch(split, step=7, **{**SETTINGS, "seed": 1}))


def test_every_image_comes_once_an_epoch_even_across_batches(split):
  row = np.concatenate([train_batch(split, step=s, **SETTINGS).index for s in range(6)])
  for epoch in row.reshape(4, 6):
    assert sorted(epoch) == list(range(6))
  assert len({tuple(epoch) for epoch in row.reshape(4, 6)}) > 1


def test_a_batch_may_be_larger_than_the_split(split):
  batch = train_batch(split, step=0, **{**SETTINGS, "batch_size": 15})
  assert np.bincount(batch.index, minlength=6).tolist().count(0) == 0


def test_the_hosts_share_the_rows_of_the_one_batch(split):
  whole = train_batch(split, step=3, **SETTINGS)
  halves = [train_batch(split, step=3, shard=(index, 2), **SETTINGS) for index in range(2)]
  for field in FIELDS:
    joined = np.concatenate([getattr(half, field) for half in halves])
    np.testing.assert_array_equal(joined, getattr(whole, field))
  with pytest.raises(ValueError, match="3 hosts"):
    train_batch(split, step=0, shard=(0, 3), **SETTINGS)


class _Counted:
  """A source that notes which examples are decoded."""

  def __init__(self, split):
    self.split, self.decoded = split, []

  def __getitem__(self, index):
    self.decoded.append(index)
    return self.split[index]


@pytest.mark.parametrize(
  "decoded",
  # The last batch is padded with copies of the last image.
  [[[0, 1, 2, 3, 4, 5]], [[0, 2, 4, 5], [1, 3, 5]], [[0, 4], [1, 5], [2, 5], [3, 5]]],
  ids=["one host", "two hosts", "four hosts"],
)
def test_a_host_decodes_the_images_of_its_own_rows_alone(split, decoded):
  hosts = len(decoded)
  whole = [batch for batch, _ in evaluation_batches(split, SPEC, batch_size=4)]
  shards, names = [], []
  for host in range(hosts):
    source = _Counted(split)
    counted = Split(source, range(6), keypoint_flip=KEYPOINT_FLIP)
    pairs = list(evaluation_batches(counted, SPEC, batch_size=4, shard=(host, hosts)))
    shards.append([batch for batch, _ in pairs])
    names.append([crop.name for _, crops in pairs for crop in crops])
    assert source.decoded == decoded[host]
    source.decoded.clear()
    train_batch(counted, step=0, shard=(host, hosts), **SETTINGS)
    assert len(source.decoded) == 4 // hosts
  for number, batch in enumerate(whole):
    for host in range(hosts):
      for field in FIELDS:
        expected = getattr(batch, field)[host::hosts]
        np.testing.assert_array_equal(getattr(shards[host][number], field), expected)
  assert sorted(itertools.chain(*names)) == sorted(example.name for example in split)
  with pytest.raises(ValueError, match="3 hosts"):
    next(evaluation_batches(split, SPEC, batch_size=4, shard=(0, 3)))


def test_without_augmentation_training_and_evaluation_see_the_same_crops(split):
  plain = {**SETTINGS, "spec": CropSpec(image_size=32, padding=0.05)}
  batch = train_batch(split, step=0, **plain)
  (whole, _), *_ = evaluation_batches(split, SPEC, batch_size=6)
  np.testing.assert_array_equal(batch.image, whole.image[batch.index])
  np.testing.assert_array_equal(batch.barrier, whole.barrier[batch.index])


def test_an_empty_split_cannot_be_trained_on():
  with pytest.raises(ValueError, match="empty"):
    train_batch(Split([], []), step=0, **SETTINGS)


def test_evaluation_visits_all_images_in_order_and_marks_the_padding(split):
  batches = list(evaluation_batches(split, SPEC, batch_size=4))
  assert [batch.valid.tolist() for batch, _ in batches] == [[True] * 4, [True] * 2 + [False] * 2]
  valid = np.concatenate([batch.index[batch.valid] for batch, _ in batches])
  np.testing.assert_array_equal(valid, np.arange(6))
  assert [len(crops) for _, crops in batches] == [4, 2]
  assert [c.name for _, crops in batches for c in crops] == [e.name for e in split]
  assert batches[1][0].image.shape == (4, 32, 32, 3)
  assert list(evaluation_batches(split[:0], SPEC, batch_size=4)) == []


def test_prefetching_keeps_the_order_and_works_on_other_threads():
  names = []
  results = list(prefetch(lambda s: (names.append(threading.get_ident()), s)[1], 3, 9))
  assert results == [3, 4, 5, 6, 7, 8]
  assert threading.get_ident() not in names


def test_an_exception_of_a_worker_reaches_the_consumer():
  def make(step):
    if step == 2:
      raise ValueError("step 2 is bad")
    return step

  stream = prefetch(make, 0, 5)
  assert [next(stream), next(stream)] == [0, 1]
  with pytest.raises(ValueError, match="step 2 is bad"):
    next(stream)


def test_a_consumer_may_stop_early():
  stream = prefetch(lambda step: step, 0, 1000)
  assert next(stream) == 0
  stream.close()
  assert threading.active_count() < 50


def test_parts_can_be_left_out(split):
  plain = train_batch(split, step=0, **SETTINGS)
  bare = train_batch(split, step=0, parts=False, **SETTINGS)
  assert plain.parts is not None and bare.parts is None
  np.testing.assert_array_equal(plain.image, bare.image)
  seen, _ = next(evaluation_batches(split, SPEC, batch_size=4, parts=False))
  assert seen.parts is None


def test_a_part_map_that_an_image_lacks_is_all_zero():
  drawn = [render_image(seed=0, split="train", index=index).example for index in range(3)]
  drawn[1] = dataclasses.replace(drawn[1], parts=None)
  split = Split(drawn, range(3), keypoint_flip=KEYPOINT_FLIP)
  ((batch, _),) = evaluation_batches(split, SPEC, batch_size=4)
  np.testing.assert_array_equal(batch.parts.any((1, 2, 3)), [True, False, True, True])
  without = Split(drawn, [1], keypoint_flip=KEYPOINT_FLIP)
  ((batch, _),) = evaluation_batches(without, SPEC, batch_size=4)
  assert batch.parts is None


def test_target_cameras_follow_the_crops(split):
  """The true cameras as targets: what comes with the batch is each crop's true camera."""
  batches = evaluation_batches(split, SPEC, batch_size=4)
  cameras = [crop.camera for _, crops in batches for crop in crops]
  for step in range(4):
    batch = train_batch(split, step=step, **SETTINGS, target_cameras=np.stack(cameras))
    assert batch.target_camera.shape == (4, 7)
    for row, number in enumerate(batch.index):
      rng = np.random.default_rng((0, 1, step, row))
      square = square_box(split[number].box, padding=0.05, jitter=rng.uniform(-0.05, 0.05, 4))
      mirrored = bool(rng.random() < 0.5)
      true = crop(
        split[number], square, image_size=32, mirror=mirrored, keypoint_flip=KEYPOINT_FLIP
      ).camera
      np.testing.assert_allclose(batch.target_camera[row], true, atol=1e-5)
  assert train_batch(split, step=0, **SETTINGS).target_camera is None


def test_a_batch_without_any_part_map_looks_like_the_others(split):
  bare = [dataclasses.replace(example, parts=None) for example in split]
  lacking = Split(bare, range(6), keypoint_flip=KEYPOINT_FLIP, part_channels=5)
  batch = train_batch(lacking, step=0, **SETTINGS)
  assert batch.parts.shape == (4, 32, 32, 5) and not batch.parts.any()
  for rows, _ in evaluation_batches(lacking[:5], SPEC, batch_size=4):
    assert rows.parts.shape == (4, 32, 32, 5)
  assert train_batch(lacking, step=0, **SETTINGS, parts=False).parts is None
  none = Split(bare, range(6), keypoint_flip=KEYPOINT_FLIP)
  assert train_batch(none, step=0, **SETTINGS).parts is None


def test_the_order_of_an_epoch_shares_no_stream_with_the_augmentation_of_a_step(split, monkeypatch):
  made = []
  make = np.random.default_rng

  def recording(words):
    # As NumPy reads them: short seeds are padded with zeros.
    made.append((*words, 0, 0)[:4])
    return make(words)

  monkeypatch.setattr(np.random, "default_rng", recording)
  for step in range(4):
    train_batch(split, SPEC, step=step, seed=3, batch_size=len(split))
  orders = {words for words in made if words[1] == 0}
  assert orders and set(made) - orders and not orders & (set(made) - orders)
  assert len(set(made)) == len(made)
