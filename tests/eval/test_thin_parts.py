"""Thin parts: legs are, trunks are not, nor is what the frame cuts off."""

import numpy as np
import pytest

from umr_jax.eval.thin_parts import thin_parts, thin_scores

SIZE = 96


def thing(*, legs=True):
  """A trunk of 40 x 24 pixels on two legs of 2 x 20."""
  mask = np.zeros((SIZE, SIZE), bool)
  mask[30:54, 28:68] = True
  if legs:
    mask[54:74, 32:34] = mask[54:74, 60:62] = True
  return mask


def test_legs_are_thin_and_the_trunk_is_not():
  thin = thin_parts(thing())
  legs = thing() & ~thing(legs=False)
  assert thin[legs].mean() > 0.9
  assert thin[thing(legs=False)].mean() < 0.05


def test_a_trunk_that_the_frame_cuts_off_is_not_thin():
  mask = np.zeros((SIZE, SIZE), bool)
  mask[95:, 20:70] = True
  assert thin_parts(mask).sum() < 0.1 * mask.sum()  # its corners
  assert not thin_parts(np.zeros((SIZE, SIZE), bool)).any()


@pytest.mark.parametrize("scale", [1, 2])
def test_recall_is_what_is_covered_and_precision_what_is_right(scale):
  whole, trunk = (
    np.kron(thing(legs=legs), np.ones((scale, scale), bool)) for legs in (True, False)
  )
  shifted = np.roll(whole, 6 * scale, axis=1)
  scores = thin_scores(np.stack([whole, trunk, shifted]), np.stack([whole, whole, whole]))
  np.testing.assert_allclose(scores["thin_recall"][:1], 1.0)
  assert scores["thin_recall"][1:].max() < 0.2
  assert scores["thin_precision"][0] == 1.0 and scores["thin_precision"][-1] < 0.2


def test_images_without_thin_parts_do_not_count():
  smooth = thin_scores(np.stack([thing()] * 2), np.zeros((2, SIZE, SIZE), bool))
  assert smooth["thin_recall"].size == 0 and smooth["thin_precision"].tolist() == [0.0, 0.0]
