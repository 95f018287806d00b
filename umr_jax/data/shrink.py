"""What is stored of a user's picture: the square around its object, not too large."""

import dataclasses
import math

import numpy as np

from umr_jax.data.example import Example, frame_square, mask_box
from umr_jax.data.folder_files import BadItemError
from umr_jax.data.transforms import Square, crop, move_camera, square_box

# Pixels a side of what is stored, at most.
_LARGEST_STORED = 512


def shrink(example: Example, margin: float) -> Example:
  """Keeps of a picture the square around its object, at most `_LARGEST_STORED` pixels a side."""
  square = square_box(example.box, padding=margin)
  # The margin is a share of the longer side in both directions: training squares are square.
  if square[2] > _LARGEST_STORED:
    return _resized(example, square)
  height, width = example.mask.shape
  left, top = max(math.floor(square[0]), 0), max(math.floor(square[1]), 0)
  right = min(math.ceil(square[0] + square[2]), width)
  bottom = min(math.ceil(square[1] + square[2]), height)
  window = (slice(top, bottom), slice(left, right))
  keypoints, camera = example.keypoints, example.camera
  if keypoints is not None:
    keypoints = keypoints - np.array([left, top, 0.0], np.float32)
  if camera is not None:
    x0, y0, side = frame_square(bottom - top, right - left)
    kept = (left + x0, top + y0, side)
    camera = move_camera(camera, source=frame_square(height, width), target=kept)
  x0, y0, x1, y1 = example.box
  return dataclasses.replace(
    example,
    image=example.image[window],
    mask=example.mask[window],
    parts=None if example.parts is None else example.parts[window],
    keypoints=keypoints,
    camera=camera,
    box=(x0 - left, y0 - top, x1 - left, y1 - top),
  )


def _resized(example: Example, square: Square) -> Example:
  """The square as a stored picture of `_LARGEST_STORED` pixels a side."""
  size = _LARGEST_STORED
  cut = crop(example, square, image_size=size)
  keypoints = cut.keypoints
  if keypoints is not None:
    pixels = (keypoints[:, :2] + 1.0) * (size / 2.0)
    keypoints = np.column_stack([pixels, keypoints[:, 2]]).astype(np.float32)
  box = mask_box(cut.mask)
  if box is None:
    raise BadItemError(f"the object is too thin to be seen at {size} pixels")
  return dataclasses.replace(
    example,
    image=np.round(255.0 * cut.image).astype(np.uint8),
    mask=cut.mask,
    parts=cut.parts,
    keypoints=keypoints,
    camera=cut.camera,
    box=box,
  )
