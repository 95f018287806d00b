"""Parts made of keypoints: the nearest visible one, mirror partners together, training alone."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from tests.tiny import tiny_config
from umr_jax.data.dataset import load_dataset
from umr_jax.data.example import Example
from umr_jax.data.keypoint_parts import keypoint_groups, parts_of


def example(keypoints):
  mask = np.zeros((20, 40), np.float32)
  mask[5:15, 5:35] = 1.0
  image = np.zeros((20, 40, 3), np.uint8)
  return Example(
    name="a", image=image, mask=mask, box=(5.0, 5.0, 35.0, 15.0), keypoints=np.array(keypoints)
  )


def test_mirror_partners_are_one_part():
  assert keypoint_groups([0, 1, 3, 2, 5, 4, 6]) == [[0], [1], [2, 3], [4, 5], [6]]


def test_a_pixel_belongs_to_the_nearest_visible_keypoint():
  # Nose left, tail right, both wing tips in the middle, one of which is hidden (and misplaced).
  points = [[6.0, 10.0, 1], [34.0, 10.0, 1], [20.0, 6.0, 1], [7.0, 7.0, 0]]
  parts = parts_of(example(points), keypoint_groups([0, 1, 3, 2]))
  np.testing.assert_allclose(parts.sum(-1), 1.0, atol=1e-6)
  np.testing.assert_allclose(parts[..., 0], 1.0 - example(points).mask)
  labels = parts.argmax(-1)
  assert labels[10, 7] == 1 and labels[10, 33] == 2 and labels[6, 20] == 3 and labels[6, 7] == 1
  np.testing.assert_allclose(parts[10, 26, 2], parts[10, 26, 3], atol=0.25)  # near the border


def test_without_a_visible_keypoint_there_is_no_map():
  assert parts_of(example([[6.0, 10.0, 0], [34.0, 10.0, 0]]), [[0], [1]]) is None


def test_training_images_alone_get_them(tmp_path):
  settings = dataclasses.replace(tiny_config(tmp_path).data, parts="keypoints")
  data = load_dataset(settings)
  given = load_dataset(dataclasses.replace(settings, parts="given"))
  train, test = data.splits["train"][0], data.splits["test"][0]
  assert train.parts.shape[-1] == 1 + len(data.part_names) and test.parts is None
  assert len(data.part_names) < len(data.keypoint_names)
  assert given.splits["train"][0].parts.shape[-1] == 1 + len(given.part_names)
  without = load_dataset(dataclasses.replace(settings, parts="none"))
  assert without.splits["train"][0].parts is None and without.part_names == ()


def test_data_without_keypoints_are_refused(tmp_path):
  for name in ("images", "masks"):
    (tmp_path / name).mkdir()
  one = example([[6.0, 10.0, 1]])
  Image.fromarray(one.image).save(tmp_path / "images" / "a.png")
  Image.fromarray((255 * one.mask).astype(np.uint8)).save(tmp_path / "masks" / "a.png")
  settings = tiny_config(tmp_path / "cache").data
  settings = dataclasses.replace(settings, source="folder", folder=str(tmp_path), parts="keypoints")
  with pytest.raises(ValueError, match="has none"):
    load_dataset(settings)


def test_maps_of_another_number_of_parts_are_refused(tmp_path):
  settings = tiny_config(tmp_path).data
  assert len(load_dataset(dataclasses.replace(settings, part_count=4)).part_names) == 4
  with pytest.raises(ValueError, match=r"have 4 parts, but data\.part_count is 6"):
    load_dataset(dataclasses.replace(settings, part_count=6))
