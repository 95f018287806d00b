"""Segmenting a data set: maps for all its images, and their mirror consistency."""

import numpy as np
import pytest

from tests.tiny import SmallParts, tiny_config
from umr_jax.data.dataset import load_dataset
from umr_jax.parts.segmenter import Segmenter, mirror_agreement, segment_dataset


def _halves(images, masks, *, by_row):
  """Two parts of every object: above and below, or left and right, of the middle of the crop."""
  size = images.shape[1]
  place = np.arange(size)[:, None] if by_row else np.arange(size)[None]
  first = np.broadcast_to(place < size // 2, masks.shape[1:])[None]
  shares = np.stack([first * masks, ~first * masks], axis=-1)
  return np.concatenate([1.0 - masks[..., None], shares], axis=-1)


@pytest.mark.parametrize(("by_row", "agreement"), [(True, 1.0), (False, 0.0)])
def test_the_mirror_shows_whether_parts_have_a_side(tmp_path, by_row, agreement):
  dataset = load_dataset(tiny_config(tmp_path).data)
  segmenter = Segmenter(32, lambda images, masks: _halves(images, masks, by_row=by_row))
  store = segment_dataset(segmenter, dataset, SmallParts(image_size=32), padding=0.05)
  assert store.mirror_agreement == agreement
  assert len(store.names) == sum(len(split) for split in dataset.splits.values())
  assert store.maps.shape[1:] == (16, 16, 3)


def test_mirror_agreement_counts_pixels_of_the_object():
  labels = np.zeros((1, 4, 4), np.int64)
  labels[0, 1:3] = [1, 1, 2, 2]
  maps = np.eye(3)[labels]
  np.testing.assert_allclose(mirror_agreement(maps, maps[:, :, ::-1]), 1.0)
  np.testing.assert_allclose(mirror_agreement(maps, maps), 0.0)
