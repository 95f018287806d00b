"""Images for display: resized, converted, tiled and saved without surprises."""

import numpy as np
import pytest
from PIL import Image

from umr_jax.viz.images import labelled_grid, resized, save_png, to_float, to_uint8


def test_floats_and_bytes_convert_into_each_other(rng):
  image = rng.integers(0, 256, (5, 6, 3)).astype(np.uint8)
  np.testing.assert_array_equal(to_uint8(to_float(image)), image)
  assert to_float(image).dtype == np.float32 and to_uint8(image) is image
  np.testing.assert_array_equal(to_uint8(np.float64([-1.0, 0.5, 2.0])), [0, 128, 255])


def test_a_smaller_image_is_averaged_and_the_same_size_unchanged(rng):
  image = rng.random((32, 32, 3)).astype(np.float32)
  np.testing.assert_array_equal(resized(image, 32), image)
  small = resized(image, 4)
  assert small.shape == (4, 4, 3) and small.dtype == np.float32
  # A filter without antialiasing keeps the deviation of single pixels, 0.29.
  assert small.std() < 0.1
  np.testing.assert_allclose(small.mean(), image.mean(), atol=0.02)


def test_a_grid_takes_floats_and_bytes_alike_and_leaves_white_around(rng):
  image = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)
  rows = [[image, to_float(image)], [image]]
  grid = labelled_grid(rows, ["first", "second"], cell=16, last_row="last")
  cells = [grid[16:32, 2:18], grid[16:32, 20:36], grid[50:66, 2:18]]
  for cell in cells:
    np.testing.assert_array_equal(cell, image)
  assert grid.dtype == np.uint8 and grid.shape == (16 + 2 * 18 + 2 + 16, 2 * 18 + 2, 3)
  assert (grid[50:66, 20:36] == 255).all()
  assert (grid[:16] < 255).any() and (grid[34:50] < 255).any()  # the names, and the last row's


def test_images_are_saved_whole(tmp_path, rng):
  image = rng.integers(0, 256, (5, 6, 3)).astype(np.uint8)
  save_png(tmp_path / "a.png", image)
  save_png(str(tmp_path / "b.png"), image / np.float32(255))
  for name in ("a.png", "b.png"):
    with Image.open(tmp_path / name) as opened:
      np.testing.assert_array_equal(np.asarray(opened), image)
  assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
  "image", [np.zeros((4, 4, 3), np.int32), np.zeros((4, 4, 2), np.uint8), np.full((4, 4), np.nan)]
)
def test_what_is_no_image_is_not_saved(tmp_path, image):
  with pytest.raises(ValueError, match="image"):
    save_png(tmp_path / "a.png", image)
  assert not list(tmp_path.iterdir())
