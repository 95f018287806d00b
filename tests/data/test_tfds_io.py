"""Writing examples and reading them back, in order, from many threads; damaged files."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from umr_jax.data.synthetic import render_image
from umr_jax.data.tfds_io import CorruptDataError, ExampleReader, write_examples


@pytest.fixture(scope="module")
def examples():
  full = [render_image(seed=0, split="train", index=index).example for index in range(5)]
  bare = dict(parts=None, keypoints=None, camera=None, shape=None)
  return [*full, dataclasses.replace(full[0], name="bäre", **bare)]


@pytest.fixture(scope="module")
def directory(examples, tmp_path_factory):
  path = tmp_path_factory.mktemp("records")
  write_examples(iter(examples), path)
  return path


def test_what_is_read_is_what_was_written(examples, directory, capsys):
  reader = ExampleReader(directory)
  assert len(reader) == len(examples)
  for index, written in enumerate(examples):
    read = reader[index]
    assert (read.name, read.shape, read.box) == (written.name, written.shape, written.box)
    difference = read.image.astype(int) - written.image
    assert np.abs(difference).mean() < 5.0  # JPEG of a noisy image
    np.testing.assert_allclose(read.mask, written.mask, atol=0.5 / 255.0)
    assert read.mask.dtype == np.float32
    for field in ("parts", "keypoints", "camera"):
      expected, found = getattr(written, field), getattr(read, field)
      if expected is None:
        assert found is None
      else:
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=0.01 if field == "parts" else 0.0)
  assert capsys.readouterr().out == ""


def test_writing_prints_nothing(examples, tmp_path, capsys):
  write_examples(iter(examples[:1]), tmp_path)
  assert capsys.readouterr().out == ""


def test_many_threads_may_read(examples, directory):
  reader = ExampleReader(directory)
  with ThreadPoolExecutor(8) as pool:
    names = list(pool.map(lambda i: reader[i % 6].name, range(60)))
  assert names == [examples[i % 6].name for i in range(60)]


def _records(path):
  return next(path.rglob("*.array_record*"))


def test_damaged_records_are_named(examples, tmp_path):
  write_examples(iter(examples), tmp_path)
  records = _records(tmp_path)
  whole = records.read_bytes()
  middle = len(whole) // 2
  for damaged in (b"", whole[:middle], whole[:middle] + b"\xff" * 64 + whole[middle + 64 :]):
    records.write_bytes(damaged)
    with pytest.raises(CorruptDataError, match="delete that folder"):
      reader = ExampleReader(tmp_path)
      for index in range(len(examples)):
        reader[index]
      raise AssertionError(f"nothing noticed in {len(damaged)} bytes")


def test_a_missing_data_set_is_named(tmp_path):
  with pytest.raises(CorruptDataError, match="cannot be opened"):
    ExampleReader(tmp_path / "nothing")
