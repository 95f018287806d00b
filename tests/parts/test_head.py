"""A linear head on features: it learns from some images and finds the parts in others."""

import numpy as np
import pytest

from tests.parts.part_shapes import draw_shapes, one_hot, part_iou
from umr_jax.parts.head import fit_head, head_maps, part_cells


@pytest.fixture
def scene(rng):
  """Features that say which part a pixel is of, mixed and noisy, of 16 images."""
  _, masks, labels = draw_shapes(rng, count=16, size=24)
  looks = rng.normal(size=(4, 12))
  features = looks[labels] + 0.4 * rng.normal(size=(*labels.shape, 12))
  return features.astype(np.float32), masks, labels


def fitted(features, targets):
  return fit_head(part_cells(features, targets, most=30_000, rng=np.random.default_rng(0)))


def test_cells_are_drawn_from_those_that_belong_to_a_part(scene, rng):
  features, _, labels = scene
  targets = one_hot(labels)
  targets[8:] = 0.0
  cells = part_cells(features, targets, most=50, rng=rng)
  assert cells.features.shape == (50, 12) and cells.shares.shape == (50, 3)
  np.testing.assert_array_equal(cells.shares.sum(axis=-1), 1.0)
  inside = labels[:8] > 0
  known = {row.tobytes() for row in features[:8][inside]}
  assert all(row.tobytes() in known for row in cells.features)
  every = part_cells(features, targets, most=10**6, rng=rng)
  assert len(every.features) == inside.sum()


def test_parts_of_some_images_are_found_in_others(scene):
  features, masks, labels = scene
  targets = one_hot(labels)
  targets[8:] = 0.0  # nothing is known of the second half
  head = fitted(features, targets)
  maps = head_maps(head, features, masks)
  np.testing.assert_allclose(maps.sum(-1), 1.0, atol=1e-5)
  np.testing.assert_allclose(maps[..., 0], 1.0 - masks, atol=1e-6)
  assert part_iou(maps[8:].argmax(-1), labels[8:]) > 0.85


def test_a_few_wrong_images_do_not_spoil_it(scene):
  features, masks, labels = scene
  targets = one_hot(labels)
  targets[:3] = targets[:3][..., [0, 2, 3, 1]]
  head = fitted(features, targets)
  assert part_iou(head_maps(head, features, masks)[:3].argmax(-1), labels[:3]) > 0.8


def test_degenerate_features_give_finite_maps_and_empty_maps_are_refused(scene):
  features, masks, labels = scene
  head = fitted(np.zeros_like(features), one_hot(labels))
  maps = head_maps(head, np.zeros_like(features), masks)
  assert np.isfinite(maps).all()
  # Without features a part's probability is its share.
  inside = labels > 0
  shares = [np.mean(labels[inside] == part) for part in (1, 2, 3)]
  np.testing.assert_allclose(maps[inside].mean(axis=0)[1:], shares, atol=0.02)
  with pytest.raises(ValueError, match="nothing to fit"):
    fitted(features, np.zeros_like(one_hot(labels)))


def test_maps_have_the_resolution_of_the_masks(scene):
  features, _, labels = scene
  head = fitted(features, one_hot(labels))
  assert head_maps(head, features, np.ones((16, 48, 48), np.float32)).shape == (16, 48, 48, 4)
