"""OpenImages' files: which masks are kept and how they are found, matched and read."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from umr_jax.data.openimages import openimages_builder

PENGUIN, PERSON = "/m/05z6w", "/m/01g317"
HEIGHT, WIDTH = 40, 60
BOX = (0.25, 0.75, 0.25, 0.75)  # in the order of CORNERS
FLAGS = ("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside")
CORNERS = ("XMin", "XMax", "YMin", "YMax")
MASK_HEADER = ["MaskPath", "ImageID", "LabelName", "BoxID", *(f"Box{name}" for name in CORNERS)]
MASK_HEADER += ["PredictedIoU", "Clicks"]
CLICKS = "0.95498 0.65197 1;0.89370 0.56579 1;0.94701 0.48968 0"  # x, y, inside or not
BOX_HEADER = ["ImageID", "Source", "LabelName", "Confidence", *CORNERS, *FLAGS]


class FakeSet:
  """A small OpenImages folder that grows by objects."""

  def __init__(self, root):
    self.root = root
    self.classes = {PENGUIN: "Penguin", PERSON: "Person", "/m/0h8n6ft": "Plumbing fixture"}
    self.masks = {split: [] for split in ("train", "validation", "test")}
    self.boxes = {split: [] for split in self.masks}
    self.class_file = "class-descriptions-boxable.csv"
    self.train_boxes = "train-annotations-bbox.csv"
    self.box_header = BOX_HEADER

  def add(
    self, image, *, split="train", label=PENGUIN, box_id="b0", box=BOX, mask_box=None, **flags
  ):
    path = f"{image}_{label.strip('/').replace('/', '')}_{box_id}.png"
    mask_box = box if mask_box is None else mask_box
    self.masks[split].append([path, image, label, box_id, *mask_box, "0.86864", CLICKS])
    set_flags = [flags.get(name, 0) for name in FLAGS]
    self.boxes[split].append([image, "xclick", label, 1, *box, *set_flags])
    return path

  def add_image(self, image, split="train"):
    (self.root / split).mkdir(exist_ok=True)
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[..., 0] = np.arange(WIDTH)
    Image.fromarray(pixels).save(self.root / split / f"{image}.jpg", quality=100)

  def mask(self, path, folder="masks/train", pixels=None):
    (self.root / folder).mkdir(parents=True, exist_ok=True)
    if pixels is None:
      # Twice the image's size: columns 15 to 44 and rows 10 to 29 of the image.
      pixels = np.zeros((2 * HEIGHT, 2 * WIDTH), bool)
      pixels[20:60, 30:90] = True
    Image.fromarray(pixels).convert("1").save(self.root / folder / path)

  def whole(self, image, *, split="train", folder=None, **options):
    path = self.add(image, split=split, **options)
    self.add_image(image, split)
    self.mask(path, folder or f"masks/{split}")
    return path

  def write(self, header=False):
    (self.root / "train").mkdir(exist_ok=True)
    rows = [["LabelName", "DisplayName"]] * header + list(map(list, self.classes.items()))
    _write(self.root / self.class_file, rows)
    for split in self.masks:
      if split != "train" and not self.masks[split]:
        continue
      masks = f"{split}-annotations-object-segmentation.csv"
      _write(self.root / masks, [MASK_HEADER, *self.masks[split]])
      boxes = self.train_boxes if split == "train" else f"{split}-annotations-bbox.csv"
      _write(self.root / boxes, [self.box_header, *self.boxes[split]])


def _write(path, rows):
  with path.open("w", newline="") as file:
    csv.writer(file).writerows(rows)


@pytest.fixture
def fake(tmp_path):
  return FakeSet(tmp_path)


def _build(fake, *, category="Penguin", margin=0.0, header=False):
  fake.write(header)
  builder = openimages_builder(fake.root, category=category, margin=margin)
  return {example.name: example for example in builder.examples()}, builder.contents()


def test_the_splits_and_a_mask_of_twice_the_size(fake):
  fake.whole("0a", box_id="p1")
  fake.whole("0b", split="validation")
  fake.whole("0c", split="test")
  fake.whole("0d", label=PERSON)
  examples, contents = _build(fake)
  assert list(examples) == ["0a_p1", "0b_b0", "0c_b0"]
  assert contents.splits == {"train": [0], "test": [1, 2]} and contents.skipped == []
  example = examples["0a_p1"]
  # What is stored is the square around the object: rows 5 to 34.
  assert example.box == (0.0, 5.0, 30.0, 25.0)
  expected = np.zeros((30, 30), np.float32)
  expected[5:25] = 1.0
  np.testing.assert_array_equal(example.mask, expected)
  np.testing.assert_allclose(example.image[0, :, 0], np.arange(15, 45), atol=2)


def test_two_objects_of_one_image_are_two_examples(fake):
  fake.whole("0a", box_id="p1", box=(0.25, 0.75, 0.25, 0.75))
  fake.whole("0a", box_id="p2", box=(0.5, 0.9, 0.25, 0.75), IsOccluded=1)
  fake.whole("0a", box_id="p3", box=(0.1, 0.9, 0.1, 0.9))
  examples, contents = _build(fake)
  assert list(examples) == ["0a_p1", "0a_p3"]
  assert contents.skipped == [("0a_p2", "its box is marked IsOccluded")]


def test_flagged_objects_are_left_out_and_unknown_flags_are_not(fake):
  fake.whole("fine")
  fake.whole("unknown", **dict.fromkeys(FLAGS, -1))
  for flag in FLAGS:
    fake.whole(flag, **{flag: 1})
  fake.whole("two", IsTruncated=1, IsInside=1)
  examples, contents = _build(fake)
  assert list(examples) == ["fine_b0", "unknown_b0"]
  expected = {f"{flag}_b0": f"its box is marked {flag}" for flag in FLAGS}
  assert dict(contents.skipped) == expected | {"two_b0": "its box is marked IsTruncated, IsInside"}


def test_boxes_are_matched_but_for_rounding(fake):
  fake.whole("near", mask_box=(0.2505, 0.7498, 0.2497, 0.7506))
  fake.whole("wide", mask_box=(0.26, 0.75, 0.25, 0.76))  # IoU 0.96
  fake.whole("far", mask_box=(0.25, 0.75, 0.25, 0.85))  # IoU 0.83
  # The nearest box decides, though the other overlaps by more than 0.9 as well.
  fake.whole("pair", box_id="p1", box=(0.25, 0.75, 0.25, 0.75))
  fake.whole("pair", box_id="p2", box=(0.25, 0.76, 0.25, 0.75), IsTruncated=1)
  examples, contents = _build(fake)
  assert list(examples) == ["near_b0", "wide_b0", "pair_p1"]
  assert contents.skipped == [
    ("far_b0", "no box of train-annotations-bbox.csv fits"),
    ("pair_p2", "its box is marked IsTruncated"),
  ]


@pytest.mark.parametrize("folder", ["masks/train", "train-masks", "masks", "train-masks-0"])
def test_the_masks_folders(fake, folder):
  fake.whole("0a", folder=folder)
  examples, contents = _build(fake)
  assert list(examples) == ["0a_b0"] and contents.skipped == []


@pytest.mark.parametrize("category", ["penguin", " PENGUIN ", PENGUIN])
def test_the_newer_files_names_and_header_and_a_class_in_any_case(fake, category):
  fake.class_file = "oidv7-class-descriptions-boxable.csv"
  fake.train_boxes = "oidv6-train-annotations-bbox.csv"
  fake.whole("0a")
  examples, _ = _build(fake, category=category, header=True)
  assert list(examples) == ["0a_b0"]


@pytest.mark.parametrize("first", [False, True])
def test_columns_are_found_by_name(fake, first):
  fake.whole("0a")
  # oidv6-train-annotations-bbox.csv has them last; another order does no harm.
  clicks = [f"XClick{number}{axis}" for axis in "XY" for number in range(1, 5)]
  row = fake.boxes["train"][0]
  fake.box_header = [*clicks, *BOX_HEADER] if first else [*BOX_HEADER, *clicks]
  fake.boxes["train"][0] = ["0.5"] * 8 + row if first else row + ["0.5"] * 8
  examples, _ = _build(fake)
  assert list(examples) == ["0a_b0"]


def test_an_unknown_class_lists_what_is_close(fake):
  fake.whole("0a")
  with pytest.raises(ValueError, match=r"'Pengiun' is none of the 3 classes .*close.* Penguin$"):
    _build(fake, category="Pengiun")
  with pytest.raises(ValueError, match="none is close to it"):
    _build(fake, category="zzzz")


def test_what_is_missing_or_damaged_is_skipped_with_its_reason(fake):
  fake.whole("fine")
  fake.mask(fake.add("noimage"))
  fake.add("nomask")
  fake.add_image("nomask")
  paths = {name: fake.whole(name) for name in ("empty", "turned", "text")}
  fake.mask(paths["empty"], pixels=np.zeros((HEIGHT, WIDTH), bool))
  fake.mask(paths["turned"], pixels=np.ones((WIDTH, HEIGHT), bool))
  (fake.root / "train" / "text.jpg").write_text("no image")
  fake.whole("number", mask_box=("0.1", "x", "0.1", "0.9"))
  fake.whole("nan", mask_box=("nan", "0.5", "0.1", "0.9"))
  fake.whole("boxless", box=("", "0.5", "0.1", "0.9"), mask_box=BOX)
  examples, contents = _build(fake)
  assert list(examples) == ["fine_b0"]
  file = "train-annotations-object-segmentation.csv"
  expected = [
    ("number_b0", f"{file}, line 8: ['0.1', 'x', '0.1', '0.9'] is not a box"),
    ("nan_b0", f"{file}, line 9: ['nan', '0.5', '0.1', '0.9'] is not a box"),
    ("boxless", "train-annotations-bbox.csv, line 10: ['', '0.5', '0.1', '0.9'] is not a box"),
    ("boxless_b0", "no box of train-annotations-bbox.csv fits"),
    ("noimage_b0", "there is no train/noimage.jpg"),
    ("nomask_b0", "there is no masks/train/nomask_m05z6w_b0.png"),
    ("empty_b0", "the mask is empty (no value of at least half)"),
    ("turned_b0", "the mask is 40 x 60 pixels, of another shape than the image's 60 x 40"),
  ]
  assert contents.skipped[:-1] == expected
  name, reason = contents.skipped[-1]
  assert name == "text_b0" and "train/text.jpg cannot be read" in reason


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (lambda text: text[:-20], r"line 2: \d+ values, expected 13; the file may be cut off"),
    (lambda text: text.replace("IsGroupOf", "Group"), r"has no column IsGroupOf: its header is"),
    (lambda text: "", "has no column LabelName"),
    (lambda text: text + "\udcff", "is not readable CSV"),
  ],
)
def test_a_damaged_annotation_file_is_named(fake, damage, message):
  fake.whole("0a")
  fake.write()
  path = fake.root / "train-annotations-bbox.csv"
  damaged = damage(path.read_text())
  path.write_text(damaged, errors="surrogateescape")
  with pytest.raises(ValueError, match=rf"train-annotations-bbox\.csv.*{message}"):
    openimages_builder(fake.root, category="Penguin", margin=0.0)


@pytest.mark.parametrize(
  "name",
  [
    "class-descriptions-boxable.csv",
    "train-annotations-object-segmentation.csv",
    "train-annotations-bbox.csv",
    "test-annotations-bbox.csv",
    "test-annotations-object-segmentation.csv",
  ],
)
def test_a_missing_file_is_named_with_its_source(fake, name):
  fake.whole("0a")
  fake.whole("0b", split="test")
  fake.write()
  (fake.root / name).unlink()
  with pytest.raises(FileNotFoundError, match=rf"no {name}\. .*openimages/web/download\.html"):
    openimages_builder(fake.root, category="Penguin", margin=0.0)


def test_a_class_without_masks_leaves_nothing(fake):
  fake.whole("0a")
  with pytest.raises(ValueError, match="nothing to learn from in the data set openimages Person"):
    _build(fake, category="Person")


def test_the_fingerprint_follows_the_files_and_the_class(fake):
  fake.whole("0a")
  fake.whole("0b", label=PERSON)
  fake.write()
  first, other = (
    openimages_builder(fake.root, category=name, margin=0.0).settings()
    for name in ("Penguin", "Person")
  )
  assert first["class"] == PENGUIN and first != other and json.dumps(first)
  fake.mask("0a_m05z6w_b0.png", pixels=np.ones((HEIGHT, WIDTH), bool))
  assert openimages_builder(fake.root, category="Penguin", margin=0.0).settings() != first
