"""Every kind of image that a user may hand in, and every complaint."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from umr_jax.predict.inputs import as_example


@pytest.fixture
def image(rng):
  return rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)


@pytest.fixture
def mask():
  mask = np.zeros((20, 30), np.float32)
  mask[5:12, 8:25] = 1.0
  return mask


def test_types_of_one_image_agree(image):
  expected = as_example(image)
  assert expected.image.dtype == np.uint8
  for same in (
    image / np.float32(255),
    image.astype(np.float64) / 255,
    image.astype(np.uint16) * 257,
    jnp.asarray(image),
    image.tolist() and Image.fromarray(image),
  ):
    np.testing.assert_array_equal(as_example(same).image, image)


def test_grey_and_boolean_images_become_three_channels(image):
  grey = image[..., 0]
  for same in (grey, grey[..., None]):
    np.testing.assert_array_equal(as_example(same).image, np.repeat(grey[..., None], 3, -1))
  np.testing.assert_array_equal(as_example(grey > 127).image[..., 1], (grey > 127) * 255)


def test_the_box_is_the_masks_else_everything_else_as_given(image, mask):
  assert as_example(image).box == (0.0, 0.0, 30.0, 20.0)
  assert as_example(image, mask=mask).box == (8.0, 5.0, 25.0, 12.0)
  assert as_example(image, mask=mask, box=(1, 2, 3.5, 4)).box == (1.0, 2.0, 3.5, 4.0)


@pytest.mark.parametrize(
  "convert",
  [
    lambda m: m > 0.5,
    lambda m: m.astype(np.uint8),
    lambda m: (m * 255).astype(np.uint8),
    lambda m: (m * 65535).astype(np.uint16),
    lambda m: m.astype(np.int64),
    lambda m: m[..., None],
  ],
  ids=["bool", "0/1", "8 bit", "16 bit", "int64 0/1", "one channel"],
)
def test_kinds_of_masks_agree(image, mask, convert):
  found = as_example(image, mask=convert(mask))
  np.testing.assert_array_equal(found.mask, mask)
  assert found.box == (8.0, 5.0, 25.0, 12.0)


def test_alpha_is_the_mask_unless_one_is_given_and_hides_to_white(image, mask):
  rgba = np.concatenate([image, (mask[..., None] * 255).astype(np.uint8)], -1)
  found = as_example(rgba)
  np.testing.assert_array_equal(found.mask, mask)
  np.testing.assert_array_equal(found.image[mask == 1], image[mask == 1])
  assert (found.image[mask == 0] == 255).all()
  assert as_example(rgba, mask=np.ones_like(mask)).box == (0.0, 0.0, 30.0, 20.0)


@pytest.mark.parametrize(
  ("change", "complaint"),
  [
    (dict(image=np.zeros((2, 20, 30, 3), np.uint8)), "one image"),
    (dict(image=np.zeros((20, 30, 2), np.uint8)), "one image"),
    (dict(image=np.zeros((0, 30, 3), np.uint8)), "one image"),
    (dict(image=np.zeros((20, 30, 3), np.int32)), "int32"),
    (dict(image=np.full((20, 30, 3), np.nan, np.float32)), "1800 values that are NaN"),
    (dict(image=np.full((20, 30, 3), 255.0)), "divide by"),
    (dict(image=np.full((20, 30, 3), -1.0)), "from -1"),
    (dict(image="photo"), "photo cannot be read"),
    (dict(image=np.array("photo")), "numbers"),
    (dict(image=[[1, 2], [3]]), "not an array"),
    (dict(mask=np.zeros((20, 30))), "empty"),
    (dict(mask=np.ones((30, 20))), r"\(30, 20\); the image has \(20, 30\)"),
    (dict(mask=np.full((20, 30), np.inf)), "mask of the image has 600"),
    (dict(mask=np.full((20, 30), 7)), "int64"),
    (dict(box=(3, 3, 3, 9)), "x0 < x1"),
    (dict(box=(0, 0, np.nan, 9)), "finite"),
    (dict(box=(0, 0, 9)), "four"),
    (dict(box=(40, 0, 50, 9)), "beside the image"),
    (dict(box=(0, 0, 1e7, 9)), "far larger"),
    (dict(box="left"), "numbers"),
  ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(image, change, complaint):
  arguments = {"image": image, **change}
  with pytest.raises(ValueError, match=complaint) as caught:
    as_example(arguments.pop("image"), **arguments)
  assert "\n" not in str(caught.value)


def test_files_are_read_upright_with_their_masks(tmp_path, image, mask):
  Image.fromarray(image).save(tmp_path / "a.png")
  Image.fromarray((mask * 255).astype(np.uint8)).save(tmp_path / "a_mask.png")
  found = as_example(tmp_path / "a.png", mask=tmp_path / "a_mask.png")
  np.testing.assert_array_equal(found.image, image)
  assert (found.name, found.box) == ("a.png", (8.0, 5.0, 25.0, 12.0))
  turned = Image.Exif()
  turned[0x0112] = 6  # the camera was held upright
  Image.fromarray(image).save(tmp_path / "b.png", exif=turned)
  assert as_example(tmp_path / "b.png").image.shape == (30, 20, 3)


def test_damaged_files_are_named(tmp_path, image):
  Image.fromarray(image).save(tmp_path / "a.png")
  data = (tmp_path / "a.png").read_bytes()
  (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
  (tmp_path / "text.png").write_text("not an image")
  for name in ("cut.png", "text.png", "missing.png"):
    with pytest.raises(ValueError, match=name):
      as_example(tmp_path / name)


def test_a_missing_mask_is_told_apart_from_a_full_one(image):
  assert not as_example(image).has_mask
  assert as_example(image, mask=np.ones(image.shape[:2], bool)).has_mask
  opaque = np.full((*image.shape[:2], 1), 255, np.uint8)
  assert not as_example(np.concatenate([image, opaque], axis=-1)).has_mask
  opaque[3, 4] = 0
  assert as_example(np.concatenate([image, opaque], axis=-1)).has_mask
