"""Learning to cut: how much of the features is kept."""

import numpy as np
import pytest
from tiny import tiny_config

from umr_jax.config import PartsConfig
from umr_jax.data.dataset import load_dataset
from umr_jax.scops import discover
from umr_jax.scops.crops import feature_batches, learned_crops, make_or_train
from umr_jax.scops.discover import learn_cut

PADDING = 0.05
# Features of 8 x 8 cells that need no network.
COLOR = PartsConfig(features="color", image_size=32, feature_size=64)


@pytest.fixture
def dataset(tmp_path):
  return load_dataset(tiny_config(tmp_path).data)


def test_features_come_a_few_pictures_at_a_time_in_the_order_of_the_crops(dataset):
  crops = learned_crops(dataset, COLOR, padding=PADDING)
  looked = list(feature_batches(make_or_train(crops, COLOR), dataset, COLOR, padding=PADDING))
  assert [(rows.start, rows.stop) for rows, _ in looked] == [(0, 8), (8, 12)]
  assert [found.shape for _, found in looked] == [(8, 8, 8, 11), (4, 8, 8, 11)]


def test_of_many_pictures_some_cells_are_kept(dataset, monkeypatch):
  kept, real = [], discover.find_factors

  def counted(cells, **options):
    kept.append(cells)
    return real(cells, **options)

  monkeypatch.setattr(discover, "find_factors", counted)
  learn_cut(dataset, COLOR, num_parts=3, padding=PADDING)
  monkeypatch.setattr(discover, "_CELLS", 24)
  learn_cut(dataset, COLOR, num_parts=3, padding=PADDING)
  every, some = kept
  assert len(every) > 100 and len(some) == 24
  # Of each batch its share.
  known = {row.tobytes(): i for i, row in enumerate(every)}
  places = np.array([known[row.tobytes()] for row in some])
  assert (np.diff(places) > 0).all() and (places < len(every) / 2).sum() in range(9, 18)
