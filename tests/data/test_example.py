"""Boxes of masks, their overlap, and the square frame of an image."""

import numpy as np
import pytest

from umr_jax.data.example import box_iou, frame_square, mask_box


def test_the_box_of_a_mask_reaches_to_the_outer_pixel_edges():
  mask = np.zeros((10, 20), np.float32)
  mask[3:6, 8] = 0.5
  mask[2, 2] = 0.4  # less than half
  assert mask_box(mask) == (8.0, 3.0, 9.0, 6.0)
  assert mask_box(np.zeros((4, 4), np.float32)) is None


@pytest.mark.parametrize(
  ("other", "iou"),
  [
    ((0.0, 0.0, 4.0, 2.0), 1.0),
    ((2.0, 0.0, 6.0, 2.0), 4.0 / 12.0),
    ((1.0, 0.5, 2.0, 1.5), 1.0 / 8.0),
    ((4.0, 0.0, 8.0, 2.0), 0.0),  # they touch
    ((5.0, 5.0, 6.0, 6.0), 0.0),  # apart in both directions
  ],
)
def test_the_overlap_of_boxes(other, iou):
  box = (0.0, 0.0, 4.0, 2.0)
  assert box_iou(box, other) == pytest.approx(iou) == box_iou(other, box)


def test_the_frame_of_an_oblong_image_is_the_square_around_its_centre():
  assert frame_square(100, 100) == (0.0, 0.0, 100.0)
  assert frame_square(60, 100) == (0.0, -20.0, 100.0)
