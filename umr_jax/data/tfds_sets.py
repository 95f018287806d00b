"""Any data set that tensorflow-datasets has prepared, if it holds images and masks.

What is read are the prepared files (format array_record): neither TensorFlow nor the code that
prepared them is needed, and nothing is ever downloaded.

The features that are looked for: `image`; the first of `segmentation_mask`, `mask`, `segmentation`,
`trimap`; for names the first of `file_name`, `filename`, `image/filename`; for a category `label`,
`species` and `label_name`. A mask of the values 1, 2 and 3 alone, as oxford_iiit_pet has them, is a
trimap: 1 is the object, 2 the background, and 3, the unclassified border, counts as the object: it
holds outlines and collars. Any other is thresholded at half of its largest possible value, or of
1 where nothing exceeds 1: caltech_birds2011's counts the annotators that marked a pixel as a bird.
Images are taken as tensorflow-datasets does, without turning them upright by their EXIF.
"""

import difflib
import functools
import io
import os
import pathlib
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from umr_jax.data.annotations import seeded_split
from umr_jax.data.example import Example, Json
from umr_jax.data.image_files import BadItemError, decode
from umr_jax.data.records import Record, RecordBuilder, file_stamps, make_example

# Part of a prepared data set's fingerprint: raise it whenever what is stored would change.
VERSION = 1

Value = bytes | int | np.ndarray  # of a record's feature

_MASKS = ("segmentation_mask", "mask", "segmentation", "trimap")
_NAMES = ("file_name", "filename", "image/filename")
_LABELS = ("label", "species", "label_name")
_SPLITS = {"train": "train", "test": "test", "validation": "test"}
_TRIMAP_BACKGROUND, _TRIMAP_LARGEST = 2, 3


class _Found(NamedTuple):
  """The names of a set's features by their use."""

  mask: str
  name: str  # "" for none
  labels: tuple[str, ...]


class _Split:
  """One split's records, with their images still encoded; may be used by many threads."""

  def __init__(self, builder: tfds.core.DatasetBuilder, split: str, mask: str):
    features = builder.info.features
    images = [name for name in ("image", mask) if isinstance(features[name], tfds.features.Image)]
    # tensorflow-datasets would decode CMYK to four channels.
    skip = {name: tfds.decode.SkipDecoding() for name in images}
    self._source = builder.as_data_source(split=split, decoders=skip)
    self._lock = threading.Lock()

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> dict[str, Value]:
    try:
      with self._lock:
        return self._source[index]
    except Exception as error:
      # array_record and protobuf raise exceptions of any type for damaged files.
      raise BadItemError(f"cannot be read ({type(error).__name__}: {error})") from error


def tfds_builder(
  name: str, *, data_dir: str, category: str, margin: float, test_fraction: float, split_seed: int
) -> RecordBuilder:
  """Lists a prepared set's records; they are read by the builder's `examples`.

  The split "train" is for training, "test" and "validation" for testing; a set that has neither of
  these is split at random.

  Args:
    name: the set, as tensorflow-datasets calls it: NAME, NAME/CONFIG, NAME:VERSION or both. Without
      a version the newest is taken.
    data_dir: where it was prepared; "" for tensorflow-datasets' own default.
    category: only records with this name of a class, in any case; "" for all.
    margin: what is kept around an object, as a share of its longer side, on every side.
    test_fraction: share of the records for testing, for a set without such a split.
    split_seed: seed of that split.

  Raises:
    FileNotFoundError: when the set is not prepared there.
    ValueError: when it was prepared in another format than array_record, has no images, masks
      or training split, has no such category, or when nothing is left.
  """
  category = category.strip()
  default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
  directory = _find_directory(name, pathlib.Path(data_dir or default).expanduser())
  builder = _open(directory, name)
  features = builder.info.features
  found = _find_features(features, directory)
  present = [split for split in _SPLITS if split in builder.info.splits]
  if "train" not in present:
    raise ValueError(f"{directory} has no split 'train', only {sorted(builder.info.splits)}")
  splits = {split: _Split(builder, split, found.mask) for split in present}
  skipped: list[tuple[str, str]] = []
  chosen = {split: list(range(len(source))) for split, source in splits.items()}
  if category:
    chosen = _choose(splits, features, found, category, skipped)
  testing: set[int] = set()
  if present == ["train"]:
    positions = seeded_split(len(chosen["train"]), test_fraction, split_seed)["test"]
    testing = {chosen["train"][position] for position in positions}
  records = []
  for split, indices in chosen.items():
    for index in indices:
      item = f"{split} {index}"
      read = functools.partial(_read_record, splits[split], index, found, item)
      side = "test" if index in testing else _SPLITS[split]
      records.append(Record(name=item, split=side, read=read))
  settings: dict[str, Json] = {
    "version": VERSION,
    "set": str(builder.info.full_name),
    "category": category.lower(),
    "test_fraction": test_fraction,
    "split_seed": split_seed,
    "files": file_stamps(directory, (path for path in directory.iterdir() if path.is_file())),
  }
  title = f"{name} {category}".strip()
  return RecordBuilder(title, records, settings=settings, margin=margin, skipped=skipped)


def _find_directory(name: str, data_dir: pathlib.Path) -> pathlib.Path:
  """The folder of a set's prepared files.

  tensorflow-datasets would look it up by the set's code, which may use the network.
  """
  path, _, version = name.partition(":")
  folder = data_dir / path
  prepared = _versions(folder)
  if not prepared and "/" not in path and folder.is_dir():
    configs = {item.name: found for item in folder.iterdir() if (found := _versions(item))}
    if len(configs) > 1:
      raise ValueError(
        f"{folder} holds several configurations: name one of {', '.join(sorted(configs))}, as in "
        f"{path}/{min(configs)}"
      )
    prepared = next(iter(configs.values()), {})
  if not prepared or (version and version not in prepared):
    there = ", ".join(sorted(prepared)) or "none, a folder with a features.json"
    raise FileNotFoundError(
      f"the data set {name!r} is not prepared in {data_dir}: of the versions in {path} there is "
      f"{there}. Nothing is downloaded here; prepare it once, where the network and what the set's "
      f"own code needs are (for most sets TensorFlow): {_advice(name, data_dir)}"
    )
  return prepared[version or max(prepared, key=tfds.core.Version)]


def _versions(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """The prepared versions right below a folder."""
  if not folder.is_dir():
    return {}
  return {
    path.name: path
    for path in folder.iterdir()
    if tfds.core.Version.is_valid(path.name) and (path / "features.json").is_file()
  }


def _advice(name: str, data_dir: pathlib.Path | str) -> str:
  return (
    f"tfds build {name} --file_format=array_record --data_dir={data_dir}, or in Python "
    f"tfds.builder({name!r}, data_dir={str(data_dir)!r}, file_format='array_record')"
    ".download_and_prepare()"
  )


def _open(directory: pathlib.Path, name: str) -> tfds.core.DatasetBuilder:
  try:
    builder = tfds.builder_from_directory(str(directory))
    formats = {item.value for item in builder.info.available_file_formats()}
  except Exception as error:
    # Damaged JSON shows as whatever protobuf and tensorflow-datasets make of it.
    raise ValueError(
      f"{directory} cannot be opened ({type(error).__name__}: {error}); prepare it again"
    ) from error
  if "array_record" not in formats:
    raise ValueError(
      f"{directory} is in the format {', '.join(sorted(formats))}, expected array_record, the one "
      "that is read without TensorFlow. Convert it once, where TensorFlow is installed: tfds "
      f"convert_format --dataset_version_dir={directory} --out_file_format=array_record; or "
      f"prepare it anew in another folder: {_advice(name, 'FOLDER')}"
    )
  return builder


def _find_features(features: tfds.features.FeatureConnector, directory: pathlib.Path) -> _Found:
  names = list(features) if isinstance(features, tfds.features.FeaturesDict) else []
  mask = next((name for name in _MASKS if name in names), None)
  image = features["image"] if "image" in names else None
  if mask is None or not isinstance(image, tfds.features.Image):
    raise ValueError(
      f"{directory} needs an image as feature 'image' and a mask, one of {', '.join(_MASKS)}; it "
      f"has {', '.join(sorted(names)) or type(features).__name__}"
    )
  return _Found(
    mask=mask,
    name=next((name for name in _NAMES if name in names), ""),
    labels=tuple(name for name in _LABELS if name in names),
  )


def _choose(
  splits: Mapping[str, _Split],
  features: tfds.features.FeaturesDict,
  found: _Found,
  category: str,
  skipped: list[tuple[str, str]],
) -> dict[str, list[int]]:
  """By split the records of a category."""
  if not found.labels:
    raise ValueError(
      f"data.category is {category!r}, but the set has none of the features {', '.join(_LABELS)}"
    )
  chosen: dict[str, list[int]] = {}
  known: dict[str, str] = {}
  for split, source in splits.items():
    chosen[split] = []
    for index in range(len(source)):
      try:
        record = source[index]
      except BadItemError as error:
        skipped.append((f"{split} {index}", str(error)))
        continue
      labels = [_label(features[name], record[name]) for name in found.labels]
      known |= {label.lower(): label for label in labels}
      if category.lower() in {label.lower() for label in labels}:
        chosen[split].append(index)
  if not any(chosen.values()):
    close = difflib.get_close_matches(category.lower(), known, n=5) or sorted(known)[:10]
    raise ValueError(
      f"no record has the category {category!r} in {', '.join(found.labels)}; of the {len(known)} "
      f"that there are: {', '.join(known[key] for key in close)}"
    )
  return chosen


def _label(feature: tfds.features.FeatureConnector | None, value: Value) -> str:
  if isinstance(feature, tfds.features.ClassLabel):
    return str(feature.int2str(int(value)))
  return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _read_record(source: _Split, index: int, found: _Found, name: str) -> Example:
  record = source[index]
  if found.name:
    name = pathlib.PurePosixPath(_label(None, record[found.name])).stem or name
  image = decode("the image", lambda: _convert(bytes(record["image"]), _rgb))
  mask = record[found.mask]
  if isinstance(encoded := mask, bytes):
    mask = decode("the mask", lambda: _convert(encoded, _one_channel))
  return make_example(name, image, _silhouette(np.asarray(mask)))


def _convert(encoded: bytes, convert: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
  with Image.open(io.BytesIO(encoded)) as image:
    return convert(image)


def _rgb(image: Image.Image) -> np.ndarray:
  return np.asarray(image.convert("RGB"))


def _one_channel(image: Image.Image) -> np.ndarray:
  # A palette's entries are labels; its colours are for display.
  if image.mode in ("1", "L", "P") or image.mode.startswith("I"):
    return np.asarray(image)
  return _rgb(image).max(axis=-1)


def _silhouette(values: np.ndarray) -> np.ndarray:
  """A mask of any kind (see the module) as [H, W] float32, 0 or 1."""
  if values.ndim == 3 and values.shape[-1] == 1:
    values = values[..., 0]
  if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "buif":
    raise BadItemError(f"the mask has shape {values.shape} and type {values.dtype}")
  lowest, largest = values.min(), values.max()
  if values.dtype.kind in "ui" and lowest >= 1 and largest <= _TRIMAP_LARGEST:
    return (values != _TRIMAP_BACKGROUND).astype(np.float32)
  # PIL reads 16-bit files as int32 in some of its versions.
  top = 1.0 if largest <= 1 else 255.0 if values.dtype.kind == "f" or largest <= 255 else 65535.0
  return (values.astype(np.float32) >= 0.5 * top).astype(np.float32)
