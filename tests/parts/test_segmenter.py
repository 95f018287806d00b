"""Segmenting a data set: its maps, their refinement, and their mirror consistency."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import SmallParts, tiny_config
from umr_jax.data.dataset import load_dataset
from umr_jax.parts.segmenter import Segmenter, mean_field, mirror_agreement, refine, segment_dataset


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


S = 20


def halves(low=0.1):
  """Two parts that meet in a straight vertical border, inside a square mask."""
  probs = np.full((1, S, S, 3), low / 2, np.float32)
  probs[0, :, :10, 1] = 1.0 - low
  probs[0, :, 10:, 2] = 1.0 - low
  mask = np.zeros((1, S, S), np.float32)
  mask[0, 2:18, 2:18] = 1.0
  return probs, mask


def test_one_iteration_matches_the_sum_over_all_pairs(rng):
  size, sigma = 6, 1.5
  field = rng.random((2, size, size, 3))
  pixel = np.stack(np.mgrid[:size, :size], axis=-1).reshape(-1, 2)
  gap = np.square(pixel[:, None] - pixel[None]).sum(-1)
  kernel = np.exp(-0.5 * gap / sigma**2)
  scale = 1.0 / np.sqrt(kernel.sum(1))
  unary = np.log(np.clip(field, 1e-5, 1.0)).reshape(2, -1, 3)
  start = np.exp(unary) / np.exp(unary).sum(-1, keepdims=True)
  message = scale[:, None] * (kernel @ (scale[:, None] * start))
  expected = np.exp(unary + 5.0 * message)
  expected /= expected.sum(-1, keepdims=True)
  found = mean_field(jnp.asarray(field, jnp.float32), sigma=sigma, compatibility=5.0, iterations=1)
  np.testing.assert_allclose(found.reshape(2, -1, 3), expected, rtol=1e-4)


def test_a_lone_wrong_pixel_is_removed_and_a_straight_border_stays():
  probs, mask = halves()
  probs[0, 10, 5] = [0.05, 0.05, 0.9]
  labels = np.asarray(refine(jnp.asarray(probs), jnp.asarray(mask))).argmax(-1)
  expected = np.where(np.arange(S)[None, None] < 10, 1, 2) * mask
  np.testing.assert_array_equal(labels, expected)


def test_maps_sum_to_one_and_parts_stay_inside_the_mask(rng):
  probs = jax.nn.softmax(jnp.asarray(rng.normal(size=(2, S, S, 4)), jnp.float32), axis=-1)
  mask = jnp.asarray(rng.random((2, S, S)) < 0.5, jnp.float32)
  maps = np.asarray(refine(probs, mask))
  np.testing.assert_allclose(maps.sum(-1), 1.0, rtol=1e-5)
  assert maps.min() >= -1e-6
  assert (maps[np.asarray(mask) == 0.0][:, 1:] == 0.0).all()


def test_a_part_that_is_weak_throughout_is_lifted_and_one_that_is_not_there_is_not():
  probs, mask = halves()
  probs[0, :, 10:] = [0.6, 0.1, 0.3]  # background wins, before parts are made comparable
  labels = np.asarray(refine(jnp.asarray(probs), jnp.asarray(mask))).argmax(-1)
  assert (labels[0, 4:16, 12:16] == 2).all()
  probs, mask = halves()
  absent = np.concatenate([probs, np.full_like(probs[..., :1], 1e-4)], axis=-1)
  maps = np.asarray(refine(jnp.asarray(absent), jnp.asarray(mask)))
  assert maps[..., 3].max() < 0.01


def test_an_empty_mask_and_empty_maps_are_all_background():
  maps = refine(jnp.zeros((1, S, S, 3)), jnp.zeros((1, S, S)))
  np.testing.assert_allclose(maps[..., 0], 1.0, rtol=1e-6)
  grad = jax.grad(lambda p: refine(p, jnp.ones((1, S, S)))[..., 1].sum())(jnp.zeros((1, S, S, 3)))
  assert np.isfinite(grad).all()
