"""Mask IoU, soft and hard, against a loop over pixels."""

import jax.numpy as jnp
import numpy as np

from umr_jax.eval.mask_iou import hard_mask_iou, soft_mask_iou


def test_both_match_a_loop_over_pixels(rng):
  alpha, mask = rng.uniform(size=(2, 3, 5, 7)).astype(np.float32)
  soft, hard = np.zeros(3), np.zeros(3)
  for b in range(3):
    above = both = inside = union = 0.0
    for a, m in zip(alpha[b].ravel(), mask[b].ravel(), strict=True):
      above += a * m
      both += a + m - a * m
      inside += (a > 0.5) and (m > 0.5)
      union += (a > 0.5) or (m > 0.5)
    soft[b], hard[b] = above / both, inside / union
  arrays = {"alpha": jnp.asarray(alpha), "mask": jnp.asarray(mask)}
  np.testing.assert_allclose(soft_mask_iou(**arrays), soft, rtol=1e-5)
  np.testing.assert_allclose(hard_mask_iou(**arrays), hard, rtol=1e-5)


def test_equal_binary_masks_score_one_and_disjoint_or_empty_ones_nothing():
  a = jnp.zeros((3, 4, 4)).at[0, :2].set(1.0).at[1, :2].set(1.0)
  b = jnp.zeros((3, 4, 4)).at[0, :2].set(1.0).at[1, 2:].set(1.0)
  for measure in (soft_mask_iou, hard_mask_iou):
    np.testing.assert_allclose(measure(alpha=a, mask=b), [1.0, 0.0, 0.0], atol=1e-6)
