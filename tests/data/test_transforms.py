"""Crops: one pixel rule for images and annotations, mirrors, borders; the barrier field."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from umr_jax.config.settings import DataConfig
from umr_jax.data.example import Example, mask_box
from umr_jax.data.synthetic import project, render_image
from umr_jax.data.synthetic_bird import KEYPOINT_FLIP
from umr_jax.data.transforms import (
  CropSpec,
  barrier,
  crop,
  crop_about_box,
  mirror_camera,
  move_camera,
  square_box,
)
from umr_jax.geometry.camera import rotation


@pytest.fixture(scope="module")
def bird():
  return render_image(seed=0, split="train", index=0)


def _example(image, mask, **more):
  return Example(name="x", image=image, mask=mask, box=mask_box(mask) or (0, 0, 1, 1), **more)


def test_the_square_pads_every_side_and_grows_the_shorter_direction():
  x0, y0, side = square_box((10.0, 20.0, 50.0, 40.0), padding=0.05)
  assert (x0, y0, side) == pytest.approx((8.0, 8.0, 44.0))


def test_jitter_moves_each_side_of_the_box_on_its_own():
  jitter = np.array([0.1, 0.0, -0.05, 0.0])  # left out by 4, right in by 2
  x0, _, side = square_box((10.0, 20.0, 50.0, 40.0), padding=0.0, jitter=jitter)
  assert (x0, side) == pytest.approx((6.0, 42.0))


def test_a_degenerate_box_gives_a_square_of_one_pixel():
  assert square_box((5.0, 5.0, 5.0, 5.0), padding=0.05)[2] == 1.0


def test_a_crop_at_full_resolution_copies_pixels(rng):
  image = rng.integers(0, 256, (20, 30, 3), np.uint8)
  mask = (rng.random((20, 30)) > 0.5).astype(np.float32)
  cut = crop(_example(image, mask), (4.0, 6.0, 12.0), image_size=12)
  np.testing.assert_allclose(cut.image, image[6:18, 4:16] / 255.0, atol=1e-6)
  np.testing.assert_allclose(cut.mask, mask[6:18, 4:16])


def test_shrinking_averages_instead_of_skipping():
  stripes = np.zeros((64, 64), np.float32)
  stripes[:, ::2] = 1.0
  image = np.repeat(np.uint8(255 * stripes)[..., None], 3, axis=-1)
  cut = crop(_example(image, stripes), (0.0, 0.0, 64.0), image_size=8)
  # The filter of the outermost pixels reaches beyond the image.
  np.testing.assert_allclose(cut.mask[1:-1, 1:-1], 0.5, atol=0.02)


def test_outside_the_image_it_is_white_and_background():
  parts = np.zeros((10, 10, 3), np.float32)
  parts[..., 1] = 1.0
  example = _example(np.zeros((10, 10, 3), np.uint8), np.ones((10, 10), np.float32), parts=parts)
  cut = crop(example, (-10.0, 0.0, 20.0), image_size=20)
  np.testing.assert_allclose(cut.image[:10, :9], 1.0)
  np.testing.assert_allclose(cut.mask[:10, :9], 0.0)
  np.testing.assert_allclose(cut.parts[:10, :9], [[[1.0, 0.0, 0.0]] * 9] * 10)
  np.testing.assert_allclose(cut.parts[:10, 11:], [[[0.0, 1.0, 0.0]] * 9] * 10)
  away = crop(example, (100.0, 100.0, 20.0), image_size=20)
  assert (away.mask == 0.0).all() and (away.image == 1.0).all()


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("square", [(1.3, -2.7, 158.0), (-30.0, -20.0, 230.0)])
def test_masks_keypoints_and_cameras_move_together(bird, square, mirror):
  flip = KEYPOINT_FLIP if mirror else ()
  cut = crop(bird.example, square, image_size=64, mirror=mirror, keypoint_flip=flip)
  moved = dataclasses.replace(bird.example, camera=cut.camera)
  # The keypoints of the shape, drawn by the new camera, are the moved keypoints.
  pixels = bird.example.keypoints[:, :2]
  expected = 2.0 * (pixels - square[:2]) / square[2] - 1.0
  if mirror:
    expected = expected[list(KEYPOINT_FLIP)] * [-1.0, 1.0]
  np.testing.assert_allclose(cut.keypoints[:, :2], expected, atol=1e-5)
  # And the projected mesh covers the moved mask's centre of mass and box.
  screen = project(bird.vertices, moved.camera)[:, :2]
  rows, columns = np.nonzero(cut.mask >= 0.5)
  found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 32.0 - 1.0
  drawn = np.clip([*screen.min(axis=0), *screen.max(axis=0)], -1.0, 1.0)
  np.testing.assert_allclose(found, drawn, atol=0.08)


def test_a_crop_about_the_box_follows_size_and_padding_of_its_spec_alone(bird):
  config = DataConfig(image_size=48, jitter=0.1)
  spec = CropSpec.from_config(config)
  assert spec == CropSpec(image_size=48, padding=0.05, jitter=0.1, mirror=True)
  spec = dataclasses.replace(spec, padding=0.2)
  found = crop_about_box(bird.example, spec)
  square = square_box(bird.example.box, padding=0.2)
  assert found.square == square
  np.testing.assert_array_equal(found.image, crop(bird.example, square, image_size=48).image)


def test_mirroring_needs_a_flip_that_fits(bird):
  with pytest.raises(ValueError, match="permutation"):
    crop(bird.example, (0.0, 0.0, 160.0), image_size=32, mirror=True, keypoint_flip=(0, 1))


def test_the_mirrored_camera_shows_a_symmetric_object_mirrored(bird):
  camera = bird.example.camera
  straight = project(bird.vertices, camera)
  mirrored = project(bird.vertices * [1, -1, 1], mirror_camera(camera))
  np.testing.assert_allclose(mirrored, straight * [-1, 1, 1], atol=1e-5)
  np.testing.assert_allclose(mirror_camera(mirror_camera(camera)), camera, atol=1e-6)


def test_the_mirrored_camera_turns_by_the_matrix_formula(bird):
  camera = bird.example.camera
  straight, mirrored = (
    np.asarray(rotation(jnp.asarray(c))) for c in (camera, mirror_camera(camera))
  )
  expected = np.diag([-1.0, 1.0, 1.0]) @ straight @ np.diag([1.0, -1.0, 1.0])
  np.testing.assert_allclose(mirrored, expected, atol=1e-6)


def test_a_camera_moved_there_and_back_is_the_same(bird):
  first, second = (0.0, 0.0, 160.0), (13.0, -4.5, 77.0)
  there = move_camera(bird.example.camera, source=first, target=second)
  back = move_camera(there, source=second, target=first)
  np.testing.assert_allclose(back, bird.example.camera, atol=1e-5)


def test_the_barrier_matches_the_distances_it_is_made_of(rng):
  mask = (rng.random((12, 12)) > 0.7).astype(np.float32) * 0.8
  inside = mask >= 0.5
  field = barrier(mask)
  points = np.argwhere(np.ones_like(inside)).reshape(12, 12, 2)
  for row in range(12):
    for column in range(12):
      other = points[inside != inside[row, column]]
      distance = np.sqrt(((other - [row, column]) ** 2).sum(axis=-1)).min()
      signed = -distance if inside[row, column] else distance
      assert field[row, column] == pytest.approx(expit(50.0 * signed / 12), rel=1e-5)


def test_the_barrier_of_an_empty_or_a_full_mask_is_constant():
  assert (barrier(np.zeros((8, 8), np.float32)) == 1.0).all()
  assert (barrier(np.ones((8, 8), np.float32)) == 0.0).all()


def test_the_barrier_does_not_depend_on_the_resolution():
  coarse, fine = np.zeros((32, 32), np.float32), np.zeros((128, 128), np.float32)
  coarse[8:24, 8:24], fine[32:96, 32:96] = 1.0, 1.0
  assert barrier(coarse)[16, 2] == pytest.approx(barrier(fine)[66, 10], abs=0.02)
