"""A prepared data set: built once into a cache, then read at random.

A data set is known by a fingerprint of everything that decides its content: the settings, and of a
user's folder every file's name, size and time.
"""

import dataclasses
import hashlib
import json
import re
import shutil
import threading
from collections.abc import Sequence
from typing import overload

from absl import logging

from umr_jax.config.settings import DataConfig
from umr_jax.data.cache import Prepared, open_prepared, prepare
from umr_jax.data.example import Example, Meshes, Source
from umr_jax.data.keypoint_parts import KeypointParts, keypoint_groups
from umr_jax.data.sources import expand_path, make_builder
from umr_jax.data.tfds_io import FORMAT_VERSION, CorruptDataError

# Decoded examples kept in memory, over both splits of a data set.
_MEMORY_BYTES = 1 << 29


class ExampleCache:
  """Keeps what was read from a source, up to a number of bytes; may be used by many threads."""

  def __init__(self, source: Source, *, budget: int = _MEMORY_BYTES):
    """Wraps a source.

    Args:
      source: of the examples.
      budget: bytes of examples that are kept, at most.
    """
    self._source, self._left = source, budget
    self._kept: dict[int, Example] = {}
    self._lock = threading.Lock()

  def __getitem__(self, index: int) -> Example:
    kept = self._kept.get(index)
    if kept is not None:
      return kept
    example = self._source[index]
    arrays = (example.image, example.mask, example.parts, example.keypoints)
    size = sum(array.nbytes for array in arrays if array is not None)
    with self._lock:
      if index not in self._kept and size <= self._left:
        self._left -= size
        self._kept[index] = example
    return example


def every_nth(count: int, limit: int) -> slice:
  """At most `limit` of `count` rows, evenly spaced from the first on.

  Args:
    count: of all rows.
    limit: of those that are taken.
  """
  return slice(None, None, max(1, -(-count // limit)))


class Split(Sequence[Example]):
  """The examples of one split, read on access.

  Attributes:
    keypoint_flip: for each keypoint the one whose place it takes in a mirrored image.
    part_channels: of the part maps, with the background; 0 where no example has one.
  """

  def __init__(
    self,
    source: Source,
    indices: Sequence[int],
    *,
    keypoint_flip: tuple[int, ...] = (),
    part_channels: int = 0,
  ):
    """Names the examples; none is read yet.

    Args:
      source: of all examples of the data set.
      indices: of those of the split, in its order.
      keypoint_flip: see `Dataset`.
      part_channels: see `Dataset`.
    """
    self._source, self._indices = source, list(indices)
    self.keypoint_flip, self.part_channels = keypoint_flip, part_channels

  def __len__(self) -> int:
    return len(self._indices)

  @overload
  def __getitem__(self, index: int) -> Example: ...
  @overload
  def __getitem__(self, index: slice) -> "Split": ...
  def __getitem__(self, index: int | slice) -> "Example | Split":
    if isinstance(index, slice):
      return Split(
        self._source,
        self._indices[index],
        keypoint_flip=self.keypoint_flip,
        part_channels=self.part_channels,
      )
    return self._source[self._indices[index]]

  def subsample(self, limit: int) -> "Split":
    """At most `limit` examples, evenly spaced."""
    return self[every_nth(len(self), limit)]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
  """Both splits of a data set and what is known of all of it."""

  name: str
  splits: dict[str, Split]  # "train" and "test"; the latter may be empty
  part_names: tuple[str, ...]
  keypoint_names: tuple[str, ...]
  keypoint_flip: tuple[int, ...]
  meshes: Meshes  # by `Example.shape`
  skipped: list[tuple[str, str]]  # what was left out of the user's files, and why
  fingerprint: str = ""  # of everything that decides the content, but for part maps


def evaluation_split(dataset: Dataset) -> str:
  """The split to evaluate and to show: "test", or "train" where nothing is left for testing."""
  return "test" if len(dataset.splits["test"]) else "train"


def load_dataset(config: DataConfig) -> Dataset:
  """Prepares a data set, unless the cache holds it, and opens it.

  Args:
    config: the source, its settings and the cache.

  Raises:
    ValueError: for an unknown source, an unset environment variable in a path, a folder with
      nothing usable or with a malformed annotation file, or another number of parts than set.
    FileNotFoundError: when the folder is not there or has no images.
    OSError: when the cache cannot be written.
  """
  builder = make_builder(config)
  settings = {"format": FORMAT_VERSION, **builder.settings()}
  serialized = json.dumps(settings, sort_keys=True).encode()
  fingerprint = hashlib.sha256(serialized).hexdigest()[:16]
  cache = expand_path(config.cache, "data.cache")
  stem = re.sub(r"[^A-Za-z0-9_-]+", "_", builder.name)[:40]
  directory = cache / f"{stem}-{fingerprint}"
  prepared = None
  if directory.exists():
    try:
      prepared = open_prepared(directory)
    except CorruptDataError as error:
      logging.warning("preparing %s again: %s", builder.name, error)
      shutil.rmtree(directory, ignore_errors=True)
  if prepared is None:
    prepare(builder, cache, directory)
    prepared = open_prepared(directory)
  dataset = _dataset(builder.name, prepared, parts=config.parts, fingerprint=fingerprint)
  found = len(dataset.part_names)
  if config.part_count and config.parts == "given" and found not in (0, config.part_count):
    raise ValueError(
      f"the part maps of {builder.name} have {found} parts, but data.part_count is "
      f"{config.part_count}; set it to {found}, or to 0 for any number"
    )
  return dataset


def load_annotated(config: DataConfig) -> Dataset:
  """A data set with its own part maps, of any number of parts, whatever parts a run takes.

  Args:
    config: as for `load_dataset`; its settings of parts do not matter.
  """
  return load_dataset(dataclasses.replace(config, parts="given", part_file="", part_count=0))


class _WithoutParts:
  """A source without its part maps."""

  def __init__(self, source: Source):
    self._source = source

  def __getitem__(self, index: int) -> Example:
    return dataclasses.replace(self._source[index], parts=None)


def _dataset(name: str, prepared: Prepared, *, parts: str, fingerprint: str) -> Dataset:
  contents, part_names = prepared.contents, prepared.contents.part_names
  source: Source = prepared.reader
  if parts in ("none", "discovered", "file"):
    source, part_names = _WithoutParts(source), ()
  elif parts == "keypoints":
    if not contents.keypoint_names:
      raise ValueError(f"data.parts is 'keypoints', but the data set {name} has none")
    source = KeypointParts(source, contents.splits["train"], contents.keypoint_flip)
    groups = keypoint_groups(contents.keypoint_flip)
    part_names = tuple(contents.keypoint_names[members[0]] for members in groups)
  memory = ExampleCache(source)
  train, test = (
    Split(
      memory,
      contents.splits[split],
      keypoint_flip=contents.keypoint_flip,
      part_channels=len(part_names) + 1 if part_names else 0,
    )
    for split in ("train", "test")
  )
  return Dataset(
    name=name,
    splits={"train": train, "test": test},
    part_names=part_names,
    keypoint_names=contents.keypoint_names,
    keypoint_flip=contents.keypoint_flip,
    meshes=contents.meshes,
    skipped=contents.skipped,
    fingerprint=fingerprint,
  )
