"""A linear head on features: it learns from some pictures and finds the parts in others."""

import numpy as np
import pytest
from part_shapes import draw_shapes, one_hot, part_iou

from umr_jax.scops.head import fit_head, head_maps


@pytest.fixture
def scene(rng):
  """Features that say which part a pixel is of, mixed and noisy, of 16 pictures."""
  _, masks, labels = draw_shapes(rng, count=16, size=24)
  looks = rng.normal(size=(4, 12))
  features = looks[labels] + 0.4 * rng.normal(size=(*labels.shape, 12))
  return features.astype(np.float32), masks, labels


def test_parts_of_some_pictures_are_found_in_others(scene):
  features, masks, labels = scene
  targets = one_hot(labels)
  targets[8:] = 0.0  # nothing is known of the second half
  head = fit_head(features, targets, seed=0)
  maps = head_maps(head, features, masks)
  np.testing.assert_allclose(maps.sum(-1), 1.0, atol=1e-5)
  np.testing.assert_allclose(maps[..., 0], 1.0 - masks, atol=1e-6)
  assert part_iou(maps[8:].argmax(-1), labels[8:]) > 0.85


def test_a_few_wrong_pictures_do_not_spoil_it(scene):
  features, masks, labels = scene
  targets = one_hot(labels)
  targets[:3] = targets[:3][..., [0, 2, 3, 1]]
  head = fit_head(features, targets, seed=0)
  assert part_iou(head_maps(head, features, masks)[:3].argmax(-1), labels[:3]) > 0.8


def test_degenerate_features_give_finite_maps_and_empty_maps_are_refused(scene):
  features, masks, labels = scene
  head = fit_head(np.zeros_like(features), one_hot(labels), seed=0)
  maps = head_maps(head, np.zeros_like(features), masks)
  assert np.isfinite(maps).all()
  # Without features a part's probability is its share.
  inside = labels > 0
  shares = [np.mean(labels[inside] == part) for part in (1, 2, 3)]
  np.testing.assert_allclose(maps[inside].mean(axis=0)[1:], shares, atol=0.02)
  with pytest.raises(ValueError, match="nothing to learn"):
    fit_head(features, np.zeros_like(one_hot(labels)), seed=0)


def test_maps_have_the_resolution_of_the_masks(scene):
  features, _, labels = scene
  head = fit_head(features, one_hot(labels), seed=0)
  assert head_maps(head, features, np.ones((16, 48, 48), np.float32)).shape == (16, 48, 48, 4)
