"""The cache of prepared data sets: written once, atomically, and checked when it is opened."""

import json
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from umr_jax.data.example import Builder, Contents, Meshes
from umr_jax.data.tfds_io import CorruptDataError, ExampleReader, write_examples

_METADATA, _MESHES = "metadata.json", "meshes.npz"
_STALE_SECONDS = 24 * 3600.0
_PREPARING = ".preparing-"


class Prepared(NamedTuple):
  """A prepared data set on disk."""

  reader: ExampleReader
  contents: Contents


def prepare(builder: Builder, cache: pathlib.Path, directory: pathlib.Path) -> None:
  """Builds a data set in a folder of its own and moves it into place when it is complete.

  Args:
    builder: the source.
    cache: where the work is done; made when missing.
    directory: the data set's place, inside `cache`.

  Raises:
    OSError: when the cache cannot be written; and whatever the builder raises. Neither leaves
      anything behind.
  """
  started = time.monotonic()
  logging.info("preparing the data set %s in %s", builder.name, directory)
  try:
    cache.mkdir(parents=True, exist_ok=True)
    _remove_stale(cache)
    work = pathlib.Path(tempfile.mkdtemp(prefix=_PREPARING, dir=cache))
  except OSError as error:
    raise OSError(f"cannot write the cache {cache} ({error}); set data.cache") from error
  try:
    write_examples(builder.examples(), work)
    contents = builder.contents()
    _write_meshes(work / _MESHES, contents.meshes)
    _write_metadata(work, builder.name, contents)
    try:
      work.rename(directory)
    except OSError:
      # Another process was quicker: what it prepared is the same.
      if not directory.exists():
        raise
  finally:
    shutil.rmtree(work, ignore_errors=True)
  for name, reason in contents.skipped[:50]:
    logging.warning("skipped %s: %s", name, reason)
  logging.info(
    "prepared %d training and %d test images in %.1f s, skipped %d items",
    len(contents.splits["train"]),
    len(contents.splits["test"]),
    time.monotonic() - started,
    len(contents.skipped),
  )


def _remove_stale(cache: pathlib.Path) -> None:
  """Removes what preparations left that were killed a day ago or longer."""
  for left in cache.glob(f"{_PREPARING}*"):
    if time.time() - left.stat().st_mtime > _STALE_SECONDS:
      shutil.rmtree(left, ignore_errors=True)


def _files(directory: pathlib.Path) -> Iterator[tuple[str, int]]:
  for path in sorted(directory.rglob("*")):
    if path.is_file() and path.name != _METADATA:
      yield str(path.relative_to(directory)), path.stat().st_size


def _write_metadata(directory: pathlib.Path, name: str, contents: Contents) -> None:
  metadata = {
    "name": name,
    "splits": contents.splits,
    "part_names": contents.part_names,
    "keypoint_names": contents.keypoint_names,
    "keypoint_flip": contents.keypoint_flip,
    "skipped": contents.skipped,
    "files": dict(_files(directory)),
  }
  (directory / _METADATA).write_text(json.dumps(metadata), encoding="utf-8")


def _write_meshes(path: pathlib.Path, meshes: Meshes) -> None:
  """All meshes in one file; faces that several shapes share are stored once."""
  arrays: dict[str, np.ndarray] = {}
  faces_of: dict[bytes, int] = {}
  shared = []
  for vertices, faces in meshes.values():
    key = faces.tobytes()
    if key not in faces_of:
      arrays[f"faces{len(faces_of)}"] = faces.astype(np.int32)
      faces_of[key] = len(faces_of)
    shared.append((vertices.shape[0], faces_of[key]))
  stacked = [vertices.astype(np.float32) for vertices, _ in meshes.values()]
  np.savez(
    path,
    allow_pickle=False,
    names=np.array(list(meshes), dtype=np.str_),
    shared=np.array(shared, np.int64).reshape(-1, 2),
    vertices=np.concatenate([np.zeros((0, 3), np.float32), *stacked]),
    **arrays,
  )


def _read_meshes(path: pathlib.Path) -> Meshes:
  with np.load(path, allow_pickle=False) as archive:
    arrays = {key: archive[key] for key in archive}
  meshes, start = {}, 0
  for name, (count, faces) in zip(arrays["names"].tolist(), arrays["shared"], strict=True):
    meshes[name] = (arrays["vertices"][start : start + count], arrays[f"faces{faces}"])
    start += count
  return meshes


def open_prepared(directory: pathlib.Path) -> Prepared:
  """Opens a prepared data set and checks that it is complete.

  Raises:
    CorruptDataError: when a file is missing, damaged or of another size than was written.
  """
  try:
    metadata: dict[str, Any] = json.loads((directory / _METADATA).read_text(encoding="utf-8"))
    expected, found = metadata["files"], dict(_files(directory))
    if expected != found:
      changed = sorted(set(expected.items()) ^ set(found.items()))[0][0]
      raise ValueError(f"{changed} is missing or of another size than it was written")
    contents = Contents(
      splits=metadata["splits"],
      part_names=tuple(metadata["part_names"]),
      keypoint_names=tuple(metadata["keypoint_names"]),
      keypoint_flip=tuple(metadata["keypoint_flip"]),
      meshes=_read_meshes(directory / _MESHES),
      skipped=[(item, reason) for item, reason in metadata["skipped"]],
    )
    reader = ExampleReader(directory)
    if len(reader) < sum(len(indices) for indices in contents.splits.values()):
      raise ValueError(f"it holds only {len(reader)} examples")
    return Prepared(reader, contents)
  except CorruptDataError:
    raise
  except Exception as error:
    # The parsers of JSON, zip and NumPy raise exceptions of any type for damaged files.
    raise CorruptDataError(
      f"the prepared data set in {directory} is damaged ({type(error).__name__}: {error}); "
      "delete that folder to have it prepared again"
    ) from error
