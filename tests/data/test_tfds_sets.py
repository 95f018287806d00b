"""Sets that tensorflow-datasets prepared: features, masks of every kind, splits and categories."""

import contextlib
import io
import json
import socket

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from umr_jax.data.tfds_sets import tfds_builder

HEIGHT, WIDTH = 40, 60
LABELS = ["Abyssinian", "american_bulldog", "Bengal"]
INSIDE = np.zeros((HEIGHT, WIDTH), bool)
INSIDE[10:30, 15:45] = True
BORDER = np.zeros((HEIGHT, WIDTH), bool)
BORDER[8:32, 13:47] = True
BORDER &= ~INSIDE
TRIMAP = np.where(INSIDE, 1, np.where(BORDER, 3, 2)).astype(np.uint8)


class _SetBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Writes records that the test hands over."""

  VERSION = tfds.core.Version("1.0.0")
  name = "some_set"

  def __init__(self, features, splits, **kwargs):
    self._features, self._splits = features, splits
    super().__init__(**kwargs)

  def _info(self):
    features = tfds.features.FeaturesDict(self._features)
    return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

  def _split_generators(self, dl_manager):
    return {split: self._generate_examples(rows) for split, rows in self._splits.items()}

  def _generate_examples(self, records):
    yield from enumerate(records)


def _prepare(data_dir, features, splits, *, name="some_set", version="1.0.0"):
  class Kind(_SetBuilder, skip_registration=True):
    VERSION = tfds.core.Version(version)

  Kind.name = name
  tfds.disable_progress_bar()
  with contextlib.redirect_stdout(io.StringIO()):
    builder = Kind(features, splits, data_dir=str(data_dir), file_format="array_record")
    offline = tfds.download.DownloadConfig(try_download_gcs=False)
    builder.download_and_prepare(download_config=offline)
  tfds.enable_progress_bar()
  return data_dir / name / version


def _encoded(pixels, file_format="PNG", mode=None):
  image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
  buffer = io.BytesIO()
  (image.convert(mode) if mode else image).save(buffer, file_format)
  return buffer.getvalue()


def _pixels():
  pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
  pixels[..., 0] = 4 * np.arange(WIDTH)
  return pixels


def _image(mode="RGB"):
  return _encoded(_pixels(), "JPEG", mode)


PET_FEATURES = {
  "image": tfds.features.Image(encoding_format="jpeg"),
  "label": tfds.features.ClassLabel(names=LABELS),
  "species": tfds.features.ClassLabel(names=["Cat", "Dog"]),
  "file_name": tfds.features.Text(),
  "segmentation_mask": tfds.features.Image(shape=(None, None, 1), use_colormap=True),
  "head_bbox": tfds.features.BBoxFeature(),
}


def _pet(name, label=0, mask=TRIMAP):
  return {
    "image": _image(),
    "label": label,
    "species": int(label == 1),
    "file_name": f"{name}.jpg",
    "segmentation_mask": _encoded(mask),
    "head_bbox": tfds.features.BBox(0.0, 0.0, 0.0, 0.0),
  }


BIRD_FEATURES = {
  "image": tfds.features.Image(),
  "image/filename": tfds.features.Text(),
  "label": tfds.features.ClassLabel(num_classes=200),
  "label_name": tfds.features.Text(),
  "bbox": tfds.features.BBoxFeature(),
  "segmentation_mask": tfds.features.Image(shape=(None, None, 1)),
}


def _bird(name, label=0, label_name="black_footed_albatross", mask=None):
  return {
    "image": _image(),
    "image/filename": f"CUB_200_2011/images/001.Black_footed_Albatross/{name}.jpg",
    "label": label,
    "label_name": label_name,
    "bbox": tfds.features.BBox(0.0, 0.0, 1.0, 1.0),
    "segmentation_mask": _encoded(np.uint8(255 * INSIDE) if mask is None else mask),
  }


def _builder(data_dir, name="some_set", *, category="", test_fraction=0.25, split_seed=0):
  return tfds_builder(
    name,
    data_dir=str(data_dir),
    category=category,
    margin=0.0,
    test_fraction=test_fraction,
    split_seed=split_seed,
  )


def _build(data_dir, name="some_set", **options):
  builder = _builder(data_dir, name, **options)
  return {example.name: example for example in builder.examples()}, builder.contents()


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
  directory = tmp_path_factory.mktemp("pets")
  train = [_pet("Abyssinian_1"), _pet("bulldog_1", 1), _pet("Bengal_1", 2), _pet("Abyssinian_2")]
  test = [_pet("Abyssinian_3"), _pet("Bengal_2", 2)]
  _prepare(directory, PET_FEATURES, {"train": train, "test": test}, name="oxford_iiit_pet")
  return directory


def test_the_pets_trimaps_object_and_border_count(pets):
  examples, contents = _build(pets, "oxford_iiit_pet")
  names = ["Abyssinian_1", "bulldog_1", "Bengal_1", "Abyssinian_2", "Abyssinian_3", "Bengal_2"]
  assert list(examples) == names
  assert contents.splits == {"train": [0, 1, 2, 3], "test": [4, 5]} and contents.skipped == []
  example = examples["Abyssinian_1"]
  # The square around 34 x 24 pixels: columns 13 to 46, rows 3 to 36.
  assert example.box == (0.0, 5.0, 34.0, 29.0)
  np.testing.assert_array_equal(example.mask, (INSIDE | BORDER)[3:37, 13:47])
  assert example.mask.dtype == np.float32
  np.testing.assert_allclose(example.image[0, :, 0], 4 * np.arange(13, 47), atol=6)


@pytest.mark.parametrize(
  ("category", "names"),
  [
    ("bengal", ["Bengal_1", "Bengal_2"]),
    (" Dog ", ["bulldog_1"]),
    ("Cat", ["Abyssinian_1", "Bengal_1", "Abyssinian_2", "Abyssinian_3", "Bengal_2"]),
  ],
)
def test_a_category_is_a_class_of_the_labels_or_the_species(pets, category, names):
  examples, contents = _build(pets, "oxford_iiit_pet", category=category)
  assert list(examples) == names
  assert len(contents.splits["train"]) == sum(
    name[-1] == "1" or name[-3:] == "n_2" for name in names
  )


def test_an_unknown_category_lists_what_is_close_or_there(pets):
  with pytest.raises(ValueError, match=r"'benga' in label, species; of the 5 .*: Bengal$"):
    _builder(pets, "oxford_iiit_pet", category="benga")
  with pytest.raises(ValueError, match=r"of the 5 that there are: Abyssinian, american_bulldog, "):
    _builder(pets, "oxford_iiit_pet", category="zzz")


def test_the_birds_masks_are_cut_at_half_of_the_annotators(tmp_path):
  agreement = np.full((HEIGHT, WIDTH), 102, np.uint8)  # two of five
  agreement[INSIDE] = 153
  agreement[15:20, 20:25] = 255
  train = [_bird("a", mask=agreement), _bird("b", 1, "laysan_albatross")]
  _prepare(
    tmp_path, BIRD_FEATURES, {"train": train, "test": [_bird("c")]}, name="caltech_birds2011"
  )
  examples, contents = _build(tmp_path, "caltech_birds2011")
  assert list(examples) == ["a", "b", "c"] and contents.splits == {"train": [0, 1], "test": [2]}
  np.testing.assert_array_equal(examples["a"].mask.sum(), INSIDE.sum())
  for category in ("Black_Footed_Albatross", "0"):
    examples, _ = _build(tmp_path, "caltech_birds2011", category=category)
    assert list(examples) == ["a", "c"]


def _masks():
  palette = Image.fromarray(np.uint8(INSIDE))
  palette.putpalette([0, 0, 0, 128, 0, 0])
  return {
    "8 bit": np.uint8(255 * INSIDE),
    "1 bit": Image.fromarray(INSIDE),
    "0 or 1": np.uint8(INSIDE),
    "16 bit": np.uint16(65535 * INSIDE),
    "palette": palette,
    "one colour": np.uint8(INSIDE[..., None] * [255, 0, 0]),
    "trimap without border": np.where(INSIDE, 1, 2).astype(np.uint8),
  }


def test_masks_of_every_kind_are_the_same_rectangle(tmp_path):
  features = {
    "image": tfds.features.Image(),
    "mask": tfds.features.Image(shape=(None, None, None)),
  }
  records = [{"image": _image(), "mask": _encoded(mask)} for mask in _masks().values()]
  _prepare(tmp_path, features, {"train": records})
  examples = list(_builder(tmp_path, test_fraction=0.0).examples())
  assert [example.name for example in examples] == [f"train {i}" for i in range(len(records))]
  for kind, example in zip(_masks(), examples, strict=True):
    assert example.mask.sum() == INSIDE.sum(), kind
    assert example.box == (0.0, 5.0, 30.0, 25.0), kind


@pytest.mark.parametrize(
  ("dtype", "shape", "top"),
  [(np.bool_, (HEIGHT, WIDTH), 1), (np.float32, (HEIGHT, WIDTH, 1), 1), (np.uint8, (40, 60), 255)],
)
def test_a_mask_may_be_a_tensor(tmp_path, dtype, shape, top):
  features = {
    "image": tfds.features.Image(),
    "segmentation": tfds.features.Tensor(shape=shape, dtype=dtype),
  }
  record = {"image": _image(), "segmentation": (top * INSIDE).astype(dtype).reshape(shape)}
  _prepare(tmp_path, features, {"train": [record]})
  examples, _ = _build(tmp_path)
  assert examples["train 0"].mask.sum() == INSIDE.sum()


def test_the_first_mask_feature_is_taken_and_cmyk_and_grey_become_rgb(tmp_path):
  features = {
    "image": tfds.features.Image(),
    "mask": tfds.features.Image(shape=(None, None, 1)),
    "trimap": tfds.features.Image(shape=(None, None, 1)),
  }
  masks = {"mask": _encoded(np.uint8(INSIDE)), "trimap": _encoded(np.uint8(2 * BORDER))}
  records = [{"image": _image(mode), **masks} for mode in ("CMYK", "L")]
  _prepare(tmp_path, features, {"train": records})
  examples, contents = _build(tmp_path, test_fraction=0.0)
  assert contents.skipped == []
  assert all(example.mask.sum() == INSIDE.sum() for example in examples.values())
  assert all(example.image.shape == (30, 30, 3) for example in examples.values())


def test_every_bad_record_is_skipped_with_its_reason(tmp_path):
  records = [_pet("fine"), _pet("empty", mask=np.full((HEIGHT, WIDTH), 2, np.uint8))]
  records += [_pet("shape", mask=TRIMAP[:30]), _pet("text"), _pet("damaged")]
  records[3]["image"] = b"no image"
  records[4]["segmentation_mask"] = records[4]["segmentation_mask"][:60]
  _prepare(tmp_path, PET_FEATURES, {"train": records})
  examples, contents = _build(tmp_path, test_fraction=0.0)
  assert list(examples) == ["fine"]
  expected = {
    "train 1": "the mask is empty",
    "train 2": "the mask is 60 x 30 pixels",
    "train 3": "the image cannot be read (UnidentifiedImageError",
    "train 4": "the mask cannot be read",
  }
  assert dict(contents.skipped).keys() == expected.keys()
  for name, reason in contents.skipped:
    assert expected[name] in reason, reason


def test_a_set_with_only_a_training_split_is_split_at_random(tmp_path):
  records = [_pet(f"n{index:02}", index % 2) for index in range(12)]
  _prepare(tmp_path, PET_FEATURES, {"train": records, "unlabelled": records[:2]})
  examples, contents = _build(tmp_path)
  assert len(examples) == 12 and len(contents.splits["test"]) == 3
  assert sorted(contents.splits["train"] + contents.splits["test"]) == list(range(12))
  assert _build(tmp_path)[1].splits == contents.splits
  assert _build(tmp_path, split_seed=1)[1].splits != contents.splits
  examples, contents = _build(tmp_path, category="cat", test_fraction=0.5)
  assert list(examples) == [f"n{index:02}" for index in range(0, 12, 2)]
  assert [len(contents.splits[split]) for split in ("train", "test")] == [3, 3]
  with pytest.raises(ValueError, match="test_fraction"):
    _builder(tmp_path, test_fraction=1.0)


def test_validation_is_for_testing_and_training_there_must_be(tmp_path):
  splits = {"train": [_pet("a")], "validation": [_pet("b")], "test": [_pet("c")]}
  _prepare(tmp_path, PET_FEATURES, splits)
  examples, contents = _build(tmp_path)
  names = list(examples)
  assert contents.splits["train"] == [names.index("a")] and len(contents.splits["test"]) == 2
  _prepare(tmp_path, PET_FEATURES, {"every": [_pet("a")]}, name="whole")
  with pytest.raises(ValueError, match=r"no split 'train', only \['every'\]"):
    _builder(tmp_path, "whole")


def test_features_that_are_missing_are_named(tmp_path):
  features = {"image": tfds.features.Image(), "id": tfds.features.Text()}
  _prepare(tmp_path, features, {"train": [{"image": _image(), "id": "a"}]})
  with pytest.raises(ValueError, match=r"a mask, one of segmentation_mask, mask.*has id, image"):
    _builder(tmp_path)
  features = {"image": tfds.features.Image(), "mask": tfds.features.Image(shape=(None, None, 1))}
  record = {"image": _image(), "mask": _encoded(np.uint8(INSIDE))}
  _prepare(tmp_path, features, {"train": [record]}, name="bare")
  with pytest.raises(ValueError, match=r"'cat', but the set has none of the features label"):
    _builder(tmp_path, "bare", category="cat")


@pytest.fixture
def no_network(monkeypatch):
  def refuse(*args, **kwargs):
    raise AssertionError("the network was asked")

  monkeypatch.setattr(socket.socket, "connect", refuse)
  monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("name", ["caltech_birds2011", "no_such_set", "some_set/config"])
def test_a_set_that_is_not_prepared_says_how_to_and_asks_no_network(tmp_path, no_network, name):
  with pytest.raises(FileNotFoundError, match=rf"tfds build {name} --file_format=array_record"):
    _builder(tmp_path, name)


def test_the_newest_version_or_the_named_one_is_read(tmp_path, no_network):
  for version in ("1.0.0", "1.10.0", "1.9.0"):
    _prepare(tmp_path, PET_FEATURES, {"train": [_pet(version)]}, version=version)
  assert list(_build(tmp_path)[0]) == ["1.10.0"]
  assert list(_build(tmp_path, "some_set:1.9.0")[0]) == ["1.9.0"]
  with pytest.raises(FileNotFoundError, match=r"there is 1\.0\.0, 1\.10\.0, 1\.9\.0\. Nothing"):
    _builder(tmp_path, "some_set:2.0.0")


def test_configurations_are_named_or_the_only_one(tmp_path):
  directory = _prepare(tmp_path, PET_FEATURES, {"train": [_pet("a")]})
  (tmp_path / "some_set" / "large").mkdir()
  directory.rename(tmp_path / "some_set" / "large" / "1.0.0")
  assert list(_build(tmp_path)[0]) == list(_build(tmp_path, "some_set/large")[0]) == ["a"]
  directory = _prepare(tmp_path / "more", PET_FEATURES, {"train": [_pet("b")]})
  (tmp_path / "some_set" / "small").mkdir()
  directory.rename(tmp_path / "some_set" / "small" / "1.0.0")
  with pytest.raises(ValueError, match="name one of large, small, as in some_set/large"):
    _builder(tmp_path)


def test_the_default_folder_is_that_of_tensorflow_datasets(pets, monkeypatch):
  monkeypatch.setenv("TFDS_DATA_DIR", str(pets))
  builder = tfds_builder(
    "oxford_iiit_pet", data_dir="", category="", margin=0.0, test_fraction=0.0, split_seed=0
  )
  assert builder.name == "oxford_iiit_pet"


@pytest.mark.parametrize("stated", ["tfrecord", None])
def test_another_format_says_how_to_convert_it(tmp_path, stated):
  directory = _prepare(tmp_path, PET_FEATURES, {"train": [_pet("a")]})
  info = json.loads((directory / "dataset_info.json").read_text())
  info["fileFormat"] = stated
  if stated is None:  # as tensorflow-datasets wrote it once
    del info["fileFormat"]
  (directory / "dataset_info.json").write_text(json.dumps(info))
  next(directory.glob("*.array_record*")).unlink()
  with pytest.raises(ValueError, match=r"format tfrecord, .*convert_format --dataset_version_dir="):
    _builder(tmp_path)


def test_a_set_converted_in_its_place_is_read(tmp_path):
  directory = _prepare(tmp_path, PET_FEATURES, {"train": [_pet("a")]})
  info = json.loads((directory / "dataset_info.json").read_text())
  info |= {"fileFormat": "tfrecord", "alternativeFileFormats": ["array_record"]}
  (directory / "dataset_info.json").write_text(json.dumps(info))
  assert list(_build(tmp_path)[0]) == ["a"]


def test_damaged_files_are_named(tmp_path):
  directory = _prepare(tmp_path, PET_FEATURES, {"train": [_pet(f"n{i}") for i in range(4)]})
  records = next(directory.glob("*.array_record*"))
  whole = records.read_bytes()
  for damaged in (b"", whole[: len(whole) // 2]):
    records.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"cannot be (opened|read)"):
      list(_builder(tmp_path).examples())
  (directory / "dataset_info.json").write_text("{")
  with pytest.raises(ValueError, match=r"cannot be opened .*prepare it again"):
    _builder(tmp_path)


def test_the_fingerprint_follows_the_files_and_the_options(pets):
  first = _builder(pets, "oxford_iiit_pet").settings()
  assert first == _builder(pets, "oxford_iiit_pet").settings() and json.dumps(first)
  assert _builder(pets, "oxford_iiit_pet", category="cat").settings() != first
  assert _builder(pets, "oxford_iiit_pet", split_seed=1).settings() != first
