"""Which canonical part is which true one, and how well they meet; against loops over pixels."""

import numpy as np
import pytest

from umr_jax.eval.part_iou import match_parts, mean_part_iou


def test_renamed_parts_are_found_again(rng):
  true = rng.integers(0, 5, (6, 8, 8))
  renamed = np.array([0, 3, 1, 4, 2])
  found = renamed[true]
  match = match_parts(found, true, parts=4)
  np.testing.assert_array_equal(match[found], true)
  assert match[0] == 0 and sorted(match) == list(range(5))
  assert all(mean_part_iou(match[f], t) == 1.0 for f, t in zip(found, true, strict=True))


def test_a_part_too_many_stands_for_nothing_that_another_holds(rng):
  true = rng.integers(0, 3, (4, 8, 8))
  found = np.where((true == 2) & (rng.random(true.shape) < 0.4), 3, true)
  match = match_parts(found, true, parts=3)
  assert match[1] == 1 and match[2] == 2 and match[3] == 3


def test_overlap_is_that_of_a_loop_over_pixels(rng):
  found, true = rng.integers(0, 4, (2, 9, 9))
  expected = []
  for part in (1, 2, 3):
    pairs = [(f == part, t == part) for f, t in zip(found.ravel(), true.ravel(), strict=True)]
    expected.append(sum(a and b for a, b in pairs) / sum(a or b for a, b in pairs))
  assert mean_part_iou(found, true) == pytest.approx(np.mean(expected))
  assert mean_part_iou(found, np.zeros_like(true)) == 0.0
