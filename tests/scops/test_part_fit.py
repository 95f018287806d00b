"""Training of the part network: it learns, repeats itself, goes on, and refuses."""

import dataclasses

import numpy as np
import pytest
from part_shapes import PARTS, draw_shapes, mutual_information, one_hot, part_iou

from umr_jax.config import PartsConfig
from umr_jax.scops.fit import fit_parts, segment

pytestmark = pytest.mark.usefixtures("standard_promotion")
SIZE = 48
SETTINGS = PartsConfig(
  image_size=SIZE, net_width=8, steps=150, batch_size=8, learning_rate=5e-3, seed=1
)


def fit(images, masks, targets=None, features=None, settings=SETTINGS, **options):
  return fit_parts(
    images,
    masks,
    targets=targets,
    features=features,
    num_parts=PARTS,
    settings=settings,
    **options,
  )


@pytest.fixture(scope="module")
def shapes():
  return draw_shapes(np.random.default_rng(0), count=40, size=SIZE)


def noisy_targets(rng, labels):
  """Blocks of wrong parts, and every fourth image without a map."""
  cells = rng.random((len(labels), 12, 12)) < 0.3
  wrong = rng.integers(1, PARTS + 1, cells.shape)
  grow = np.ones((4, 4), int)
  cells, wrong = (np.kron(a, grow) for a in (cells, wrong))
  noisy = np.where(cells & (labels > 0), wrong, labels)
  targets = one_hot(noisy)
  targets[::4] = 0.0
  return noisy, targets


@pytest.mark.slow
def test_maps_are_cleaner_than_the_targets_they_were_learned_from(rng, shapes):
  images, masks, labels = shapes
  noisy, targets = noisy_targets(rng, labels)
  seen = []
  result = fit(images, masks, targets, record=lambda step, losses: seen.append((step, losses)))
  probs = segment(result, images, batch_size=16)
  assert probs.shape == (40, SIZE, SIZE, PARTS + 1) and probs.dtype == np.float32
  np.testing.assert_allclose(probs.sum(-1), 1.0, rtol=1e-5)
  cleaned, given = part_iou(probs.argmax(-1), labels), part_iou(noisy, labels)
  print(cleaned, given, part_iou(probs.argmax(-1)[::4], labels[::4]))
  assert cleaned > given + 0.1
  assert part_iou(probs.argmax(-1)[::4], labels[::4]) > given + 0.05  # of the images without
  assert [step for step, _ in seen] == [25, 50, 75, 100, 125, 150]
  assert seen[-1][1]["total"] < seen[0][1]["total"]


@pytest.mark.slow
def test_the_losses_of_scops_alone_find_the_parts(rng, shapes):
  images, masks, labels = shapes
  codes = np.abs(rng.normal(size=(PARTS + 1, 16))).astype(np.float32)
  cells = one_hot(labels).reshape(40, 12, 4, 12, 4, PARTS + 1).mean((2, 4))
  features = cells @ codes + rng.normal(0.0, 0.3, (40, 12, 12, 16)).astype(np.float32)
  settings = dataclasses.replace(
    SETTINGS,
    steps=300,
    supervision=0.0,
    concentration=0.1,
    equivariance=10.0,
    landmark=1.0,
    semantic=10.0,
    orthonormality=0.01,
  )
  result = fit(images, masks, None, features.astype(np.float32), settings)
  found = segment(result, images, batch_size=16).argmax(-1)
  score = mutual_information(found, labels)
  print(score)
  assert score > 0.5
