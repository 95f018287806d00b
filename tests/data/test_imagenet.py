"""ImageNet's folder: its layouts, boxes, masks by object, the quality list, and what is missing."""

import json

import numpy as np
import pytest
from PIL import Image

from umr_jax.data.imagenet import imagenet_builder

ZEBRA = "n02391049"
HEIGHT, WIDTH = 40, 60


def _rectangle(x0, y0, x1, y1):
  mask = np.zeros((HEIGHT, WIDTH), bool)
  mask[y0:y1, x0:x1] = True
  return mask


def _add_image(root, name, folder=ZEBRA, suffix=".JPEG"):
  (root / folder).mkdir(parents=True, exist_ok=True)
  # A column's number is its red value, so that a cut-out tells where it was.
  pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
  pixels[..., 0] = np.arange(WIDTH)
  Image.fromarray(pixels).save(root / folder / f"{name}{suffix}", "JPEG", quality=100)


def _add_mask(root, name, mask):
  (root / "masks" / ZEBRA).mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.uint8(255 * mask)).save(root / "masks" / ZEBRA / f"{name}.png")


def _add_boxes(root, name, boxes, *, folder=f"Annotation/{ZEBRA}", label=ZEBRA, width=WIDTH):
  (root / folder).mkdir(parents=True, exist_ok=True)
  objects = "".join(
    f"<object><name>{label}</name><pose>Unspecified</pose><bndbox><xmin>{x0}</xmin>"
    f"<ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
    for x0, y0, x1, y1 in boxes
  )
  size = f"<size><width>{width}</width><height>{HEIGHT}</height><depth>3</depth></size>"
  text = f"<annotation><folder>{ZEBRA}</folder><filename>{name}</filename>{size}{objects}"
  (root / folder / f"{name}.xml").write_text(f"{text}</annotation>")


def _builder(root, *, category="zebra", test_fraction=0.0, split_seed=0, margin=0.0):
  return imagenet_builder(
    root, category=category, test_fraction=test_fraction, split_seed=split_seed, margin=margin
  )


def _build(root, **options):
  builder = _builder(root, **options)
  return {example.name: example for example in builder.examples()}, builder.contents()


@pytest.mark.parametrize(
  "folder", ["{}", "images/{}", "train/{}", "ILSVRC/Data/CLS-LOC/train/{}"], ids=range(4)
)
@pytest.mark.parametrize("category", ["zebra", " Zebra", ZEBRA])
def test_every_layout_and_way_to_name_a_category(tmp_path, folder, category):
  _add_image(tmp_path, f"{ZEBRA}_7", folder.format(ZEBRA))
  _add_mask(tmp_path, f"{ZEBRA}_7", _rectangle(10, 5, 30, 25))
  examples, contents = _build(tmp_path, category=category)
  assert list(examples) == [f"{ZEBRA}_7"] and contents.skipped == []
  example = examples[f"{ZEBRA}_7"]
  # Cut to the mask's box: twenty pixels from column 10.
  assert example.box == (0.0, 0.0, 20.0, 20.0)
  np.testing.assert_array_equal(example.mask, np.ones((20, 20), np.float32))
  np.testing.assert_allclose(example.image[0, :, 0], np.arange(10, 30), atol=2)


def test_the_first_layout_that_exists_is_read(tmp_path):
  for folder, name in ((ZEBRA, "a"), (f"images/{ZEBRA}", "b")):
    _add_image(tmp_path, name, folder)
    _add_mask(tmp_path, name, _rectangle(10, 5, 30, 25))
  examples, contents = _build(tmp_path)
  assert list(examples) == ["a"]
  assert contents.skipped == [("b", f"masks/{ZEBRA}/b.png belongs to no image")]


@pytest.mark.parametrize(
  "folder", [f"Annotation/{ZEBRA}", f"ILSVRC/Annotations/CLS-LOC/train/{ZEBRA}"]
)
def test_one_mask_of_several_boxes_is_cut_to_the_largest(tmp_path, folder):
  _add_image(tmp_path, "a")
  _add_mask(tmp_path, "a", _rectangle(2, 2, 58, 38))
  # Corners count from 1 and belong to the box: columns 20 to 39 and rows 10 to 24.
  _add_boxes(tmp_path, "a", [(1, 1, 12, 12), (21, 11, 40, 25)], folder=folder)
  examples, contents = _build(tmp_path, margin=0.5)
  assert contents.skipped == []
  example = examples["a"]
  assert example.mask.sum() == 20 * 15
  x0, _, x1, _ = example.box
  inside = example.image[:, int(x0) : int(x1), 0]
  np.testing.assert_allclose(inside.mean(axis=0), np.arange(20, 40), atol=2)


def test_one_box_or_another_synsets_boxes_leave_the_mask_alone(tmp_path):
  for name, boxes, label in (
    ("one", [(20, 10, 30, 20)], ZEBRA),
    ("other", [(20, 10, 30, 20), (1, 1, 50, 30)], "n02381460"),
  ):
    _add_image(tmp_path, name)
    _add_mask(tmp_path, name, _rectangle(2, 2, 58, 38))
    _add_boxes(tmp_path, name, boxes, label=label)
  examples, _ = _build(tmp_path)
  assert [example.mask.sum() for example in examples.values()] == [56 * 36, 56 * 36]


def test_masks_by_object_are_examples_whatever_the_boxes_say(tmp_path):
  name = f"{ZEBRA}_12"
  _add_image(tmp_path, name)
  for key, x0 in ((0, 2), (2, 20), (10, 40)):
    _add_mask(tmp_path, f"{name}_{key}", _rectangle(x0, 10, x0 + 12, 22))
  _add_mask(tmp_path, name, _rectangle(0, 0, 60, 40))
  _add_boxes(tmp_path, name, [(3, 11, 14, 22), (21, 11, 32, 22)])
  examples, contents = _build(tmp_path)
  assert list(examples) == [f"{name}_0", f"{name}_2", f"{name}_10"]
  for example, x0 in zip(examples.values(), (2, 20, 40), strict=True):
    assert example.mask.sum() == 144
    assert abs(example.image[..., 0].mean() - (x0 + 5.5)) < 1.0
  assert contents.skipped == [
    (name, f"masks/{ZEBRA}/{name}.png is not used: there are masks by object")
  ]


def test_an_images_whole_name_comes_before_an_objects_number(tmp_path):
  for name in ("a", "a_1"):
    _add_image(tmp_path, name)
    _add_mask(tmp_path, name, _rectangle(10, 5, 30, 25))
  examples, _ = _build(tmp_path)
  assert list(examples) == ["a", "a_1"]


def test_the_split_is_by_image_and_depends_on_its_seed(tmp_path):
  for index in range(10):
    _add_image(tmp_path, f"z{index}")
    for key in range(2):
      _add_mask(tmp_path, f"z{index}_{key}", _rectangle(10, 5, 30, 25))
  examples, contents = _build(tmp_path, test_fraction=0.2)
  names = list(examples)
  tests = [names[i] for i in contents.splits["test"]]
  assert len(tests) == 4 and len({name[:2] for name in tests}) == 2
  assert sorted(contents.splits["train"] + contents.splits["test"]) == list(range(20))
  assert _build(tmp_path, test_fraction=0.2)[1].splits == contents.splits
  assert _build(tmp_path, test_fraction=0.2, split_seed=1)[1].splits != contents.splits
  with pytest.raises(ValueError, match="test_fraction"):
    _builder(tmp_path, test_fraction=1.0)


def test_only_good_images_of_the_quality_list_are_kept(tmp_path):
  for name in ("good", "named", "bad", "unlisted"):
    _add_image(tmp_path, name)
    _add_mask(tmp_path, name, _rectangle(10, 5, 30, 25))
  (tmp_path / "quality").mkdir()
  listed = {"good": "good", "named.JPEG": "good", "bad": "truncated"}
  (tmp_path / "quality" / f"{ZEBRA}.json").write_text(json.dumps(listed))
  examples, contents = _build(tmp_path)
  assert list(examples) == ["good", "named"]
  assert contents.skipped == [
    ("bad", "not good by the quality list: truncated"),
    ("unlisted", "not good by the quality list: not in the quality list"),
  ]


def test_a_quality_list_by_object_as_csm_writes_it(tmp_path):
  for name in ("both", "none"):
    _add_image(tmp_path, name)
    for key in range(2):
      _add_mask(tmp_path, f"{name}_{key}", _rectangle(10, 5, 30, 25))
  for name in ("whole", "poor"):
    _add_image(tmp_path, name)
    _add_mask(tmp_path, name, _rectangle(10, 5, 30, 25))
  listed = {
    "both": {"0": False, "1": True, "good": True},
    "none": {"good": False},
    "whole": {"0": True},
    "poor": {"0": True, "good": False},
  }
  (tmp_path / "quality").mkdir()
  (tmp_path / "quality" / f"{ZEBRA}.json").write_text(json.dumps(listed))
  examples, contents = _build(tmp_path)
  assert list(examples) == ["both_1", "whole"]
  assert [name for name, _ in contents.skipped] == ["both_0", "none_0", "none_1", "poor"]
  (tmp_path / "quality" / f"{ZEBRA}.json").write_text("{")
  with pytest.raises(ValueError, match=rf"{ZEBRA}\.json is not readable JSON"):
    _builder(tmp_path)


def test_every_bad_item_is_skipped_with_its_reason(tmp_path):
  whole = _rectangle(10, 5, 30, 25)
  two = [(1, 1, 30, 30), (31, 1, 40, 10)]
  names = ("fine", "nomask", "xml", "box", "numbers", "size", "small", "shape", "outside", "text")
  for name in names:
    _add_image(tmp_path, name)
    _add_mask(tmp_path, name, whole)
    _add_boxes(tmp_path, name, two)
  annotation = tmp_path / "Annotation" / ZEBRA
  (tmp_path / "masks" / ZEBRA / "nomask.png").unlink()
  (annotation / "xml.xml").write_text("<annotation><object>")
  _add_boxes(tmp_path, "box", [(1, 1, 30, 30), (40, 1, 31, 10)])
  (annotation / "numbers.xml").write_text(
    "<annotation><object><name>x</name></object></annotation>"
  )
  _add_boxes(tmp_path, "size", two, width=500)
  _add_mask(tmp_path, "small", _rectangle(10, 10, 14, 14))
  _add_mask(tmp_path, "shape", np.ones((30, 30), bool))
  _add_boxes(tmp_path, "outside", [(41, 1, 60, 40), (1, 1, 5, 5)])
  (tmp_path / ZEBRA / "text.JPEG").write_text("no image")
  _add_mask(tmp_path, "stray", whole)
  _add_image(tmp_path, "fine", suffix=".jpg")
  examples, contents = _build(tmp_path)
  assert list(examples) == ["fine"]
  reasons = dict(contents.skipped)
  expected = {
    "nomask": "there is no mask nomask.png and no nomask_K.png",
    "xml": "its boxes, xml.xml, cannot be read (no element found",
    "box": "a box from (40.0, 1.0) to (31.0, 10.0)",
    "numbers": "a box from (nan, nan)",
    "size": "are of an image of 500 x 40 pixels, the image (upright by its EXIF) is 60 x 40",
    "small": "4 pixels long",
    "shape": "the mask is 30 x 30 pixels",
    "outside": "the mask is empty",
    "text": "text.JPEG cannot be read",
    "stray": "belongs to no image",
    "fine.jpg": "fine.JPEG has the same name",
  }
  assert set(reasons) == set(expected)
  for name, reason in expected.items():
    assert reason in reasons[name], reasons[name]


def test_missing_folders_are_named_with_their_source(tmp_path):
  with pytest.raises(
    FileNotFoundError, match=rf"no {ZEBRA}, no images/{ZEBRA}.*image-net\.org.*{ZEBRA}\.tar"
  ):
    _builder(tmp_path)
  _add_image(tmp_path, "a")
  with pytest.raises(FileNotFoundError, match=rf"there is no masks/{ZEBRA}\. ImageNet has no"):
    _builder(tmp_path)
  (tmp_path / "masks" / ZEBRA).mkdir(parents=True)
  with pytest.raises(ValueError, match=r"(?s)nothing to learn from.*a: there is no mask a\.png"):
    _builder(tmp_path)


def test_an_unknown_category_lists_the_known_ones(tmp_path):
  with pytest.raises(ValueError, match=r"'llama'.*bear, cow, horse, sheep, zebra"):
    _builder(tmp_path, category="llama")


def test_the_fingerprint_follows_the_files_and_the_options(tmp_path):
  _add_image(tmp_path, "a")
  _add_mask(tmp_path, "a", _rectangle(10, 5, 30, 25))
  first = _builder(tmp_path).settings()
  assert first == _builder(tmp_path).settings() and json.dumps(first)
  assert first["source"] == f"imagenet {ZEBRA}"
  assert _builder(tmp_path, split_seed=1).settings() != first
  _add_boxes(tmp_path, "a", [(1, 1, 5, 5)])
  assert _builder(tmp_path).settings() != first
