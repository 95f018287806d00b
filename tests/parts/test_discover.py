"""Fitting segmenters: how many features are kept, and what maps of some images are worth."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.parts.part_shapes import PARTS, draw_shapes, one_hot, part_iou
from tests.tiny import SmallParts, tiny_config
from umr_jax.data.batching import evaluation_batches
from umr_jax.data.dataset import Dataset, Split, load_dataset
from umr_jax.data.example import Example, mask_box
from umr_jax.data.image_files import to_bytes
from umr_jax.data.transforms import CropSpec
from umr_jax.parts import discover
from umr_jax.parts.crops import feature_batches
from umr_jax.parts.discover import fit_pseudo_labels, fit_segmenter
from umr_jax.parts.features import Features

PADDING = 0.05
SMALL = SmallParts(image_size=32, feature_size=64)
# The mean and the deviation of the colours of 8 x 8 pixels, in the place of a frozen network.
CELL = 8


def cell_colors(images):
  batch, size = images.shape[:2]
  cells = images.reshape(batch, size // CELL, CELL, size // CELL, CELL, 3)
  return jnp.concatenate([cells.mean((2, 4)), cells.std((2, 4))], axis=-1)


@pytest.fixture(autouse=True)
def colors(monkeypatch):
  features = Features(cell_colors, "efficientnet")
  monkeypatch.setattr(discover, "load_features", lambda *_, **__: features)
  return features


@pytest.fixture
def dataset(tmp_path):
  return load_dataset(tiny_config(tmp_path).data)


def test_features_come_a_few_images_at_a_time_in_the_order_of_the_crops(dataset, colors):
  looked = list(feature_batches(colors, dataset.splits["train"], SMALL, padding=PADDING))
  assert [(rows.start, rows.stop) for rows, _ in looked] == [(0, 8), (8, 12)]
  assert [found.shape for _, found in looked] == [(8, 8, 8, 6), (4, 8, 8, 6)]


def test_of_many_images_some_cells_are_kept(dataset, monkeypatch):
  kept, real = [], discover.find_factors

  def counted(cells, **options):
    kept.append(cells)
    return real(cells, **options)

  monkeypatch.setattr(discover, "find_factors", counted)
  fit_segmenter(dataset, SMALL, num_parts=3, padding=PADDING)
  monkeypatch.setattr(discover, "_CELLS", 24)
  fit_segmenter(dataset, SMALL, num_parts=3, padding=PADDING)
  every, some = kept
  assert len(every) > 100 and len(some) == 24
  # Of each batch its share.
  known = {row.tobytes(): i for i, row in enumerate(every)}
  places = np.array([known[row.tobytes()] for row in some])
  assert (np.diff(places) > 0).all() and (places < len(every) / 2).sum() in range(9, 18)


def shapes(count):
  """A data set of drawn shapes, with their parts."""
  images, masks, labels = draw_shapes(np.random.default_rng(0), count=count, size=64)
  examples = [
    Example(
      name=f"shape {i}",
      image=np.round(255.0 * images[i]).astype(np.uint8),
      mask=masks[i],
      box=mask_box(masks[i]),
      parts=one_hot(labels[i]),
    )
    for i in range(count)
  ]
  return Dataset(
    name="shapes",
    splits={"train": Split(examples, range(count), part_channels=PARTS + 1)},
    part_names=("back", "belly", "head"),
    keypoint_names=(),
    keypoint_flip=(),
    meshes={},
    skipped=[],
  )


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 100])
def test_parts_of_labelled_images_are_found_in_the_others(steps, standard_promotion):
  """By a linear head on features, and by the network."""
  dataset = shapes(32)
  settings = SmallParts(
    feature_size=256, image_size=48, net_width=16, steps=steps, learning_rate=1e-2
  )

  def crops(size):
    batches = evaluation_batches(
      dataset.splits["train"], CropSpec(image_size=size, padding=PADDING), batch_size=32
    )
    return next(batches)[0]

  targets = to_bytes(crops(48).parts)
  targets[20:] = 0
  segmenter = fit_pseudo_labels(dataset, settings, targets, padding=PADDING)
  seen = crops(segmenter.size)
  found = segmenter.maps(seen.image, seen.mask)
  assert found.shape == seen.parts.shape
  assert part_iou(found[20:].argmax(-1), seen.parts[20:].argmax(-1)) > 0.85
