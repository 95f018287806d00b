"""Factors and clusters: what is mixed of few parts comes apart again."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.parts.part_shapes import draw_shapes
from umr_jax.eval.part_quality import normalized_mutual_information, part_labels
from umr_jax.parts.cosegment import (
  cluster_maps,
  factor_maps,
  factor_weights,
  factorize,
  find_clusters,
  find_factors,
  mirrored_features,
  object_cells,
)


def mixture(rng, *, rows=400, parts=3, channels=12):
  """Rows that are one part each, mostly, and the parts' own features."""
  basis = np.eye(parts, channels, dtype=np.float32) + np.float32(0.05)
  labels = rng.integers(0, parts, rows)
  weights = (
    0.05 * rng.random((rows, parts)) + rng.uniform(0.5, 2.0, (rows, 1)) * np.eye(parts)[labels]
  )
  return (weights @ basis).astype(np.float32), labels, basis


def test_factors_are_the_parts_that_rows_are_mixed_of(rng):
  rows, _, basis = mixture(rng)
  found = factorize(rows, num_parts=3, seed=0)
  unit = basis / np.linalg.norm(basis, axis=1, keepdims=True)
  likeness = found @ unit.T
  assert sorted(likeness.argmax(axis=1)) == [0, 1, 2]
  assert likeness.max(axis=1).min() > 0.99
  np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-4)


def test_weights_solve_the_non_negative_least_squares(rng):
  from scipy.optimize import nnls

  rows, _, basis = mixture(rng, rows=20)
  found = factor_weights(rows, basis)
  expected = np.stack([nnls(basis.T.astype(np.float64), row.astype(np.float64))[0] for row in rows])
  np.testing.assert_allclose(found, expected, atol=2e-2)


def test_degenerate_rows_give_finite_factors():
  for rows in (np.zeros((10, 4), np.float32), np.ones((10, 4), np.float32)):
    found = factorize(rows, num_parts=3, seed=0)
    assert np.isfinite(found).all() and found.shape == (3, 4)
    assert np.isfinite(factor_weights(rows, found)).all()


def test_features_follow_a_mirrored_image(rng):
  images = jnp.asarray(rng.random((2, 8, 8, 3)), jnp.float32)

  def lopsided(x):
    return x * jnp.arange(8.0).reshape(1, 1, 8, 1) + jnp.roll(x, 1, axis=2)

  plain = mirrored_features(lopsided, images)
  mirrored = mirrored_features(lopsided, images[:, :, ::-1])
  np.testing.assert_allclose(mirrored[:, :, ::-1], plain, rtol=1e-5)
  assert not np.allclose(lopsided(images[:, :, ::-1])[:, :, ::-1], lopsided(images))


def factors_of(features, masks):
  cells = object_cells(features, masks, most=10**6, rng=np.random.default_rng(0))
  return find_factors(cells, lowest=features.min(axis=(0, 1, 2)), num_parts=3, seed=0)


def test_cells_are_those_inside_of_the_masks_in_their_order_or_some_of_them(rng):
  features = np.arange(2 * 6 * 6, dtype=np.float32).reshape(2, 6, 6, 1)
  masks = rng.random((2, 6, 6)).astype(np.float32)
  inside = features[masks >= 0.5]
  np.testing.assert_array_equal(object_cells(features, masks, most=72, rng=rng), inside)
  some = object_cells(features, masks, most=10, rng=rng)
  assert len(np.unique(some)) == 10 and set(some[:, 0]) <= set(inside[:, 0])
  np.testing.assert_array_equal(some, np.sort(some, axis=0))


def test_maps_of_factors_find_parts_inside_of_masks_alone(rng):
  _, masks, labels = draw_shapes(rng, count=12, size=16)
  looks = rng.random((4, 10)).astype(np.float32) ** 4
  features = looks[labels] + 0.02 * rng.random((*labels.shape, 10)).astype(np.float32) - 0.01
  factors = factors_of(features, masks)
  maps = factor_maps(factors, features, masks)
  np.testing.assert_allclose(maps[..., 0], 1.0 - masks, atol=1e-6)
  np.testing.assert_allclose(maps.sum(-1), 1.0, atol=1e-4)
  assert normalized_mutual_information(part_labels(maps), labels) > 0.8
  with pytest.raises(ValueError, match="fewer than the 3 parts"):
    factors_of(features, np.zeros_like(masks))
  # At the resolution of the masks, whatever the features'.
  larger = factor_maps(factors, features, np.ones((12, 32, 32), np.float32))
  agreed = part_labels(larger)[:, ::2, ::2] == part_labels(maps)
  assert agreed[labels > 0].mean() > 0.7


def test_clusters_by_position_divide_the_box(rng):
  _, masks, _ = draw_shapes(rng, count=20, size=24)
  maps = cluster_maps(find_clusters(masks, num_parts=3, seed=0), masks)
  np.testing.assert_allclose(maps.sum(-1), 1.0, atol=1e-6)
  np.testing.assert_allclose(maps[..., 0], 1.0 - masks)
  # A place in the box is the same part, wherever in the image the box is.
  square = np.zeros((2, 24, 24), np.float32)
  square[0, 2:14, 2:14] = square[1, 10:22, 9:21] = 1.0
  maps = cluster_maps(find_clusters(square, num_parts=3, seed=0), square)
  np.testing.assert_array_equal(maps[0, 2:14, 2:14], maps[1, 10:22, 9:21])
  assert (maps[..., 1:].sum((0, 1, 2)) > 0.1 * square.sum()).all()
