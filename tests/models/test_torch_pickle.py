"""The format that PyTorch wrote before 1.6: what it holds, and everything that is refused."""

import pickle

import numpy as np
import pytest

from tests.models.torch_file import write_old_torch_file
from umr_jax.models.pretrained import read_torch_file


@pytest.fixture
def state():
  rng = np.random.default_rng(0)
  return {
    "conv.weight": rng.normal(size=(4, 3, 2, 2)).astype(np.float32),
    "transposed": rng.normal(size=(3, 5)).astype(np.float32).T,
    "steps": np.array(7, np.int64),
  }


def test_an_old_file_holds_what_was_written(tmp_path, state):
  path = tmp_path / "old.pth"
  write_old_torch_file(path, state)
  found = read_torch_file(path)
  assert set(found) == set(state)
  for key, value in state.items():
    np.testing.assert_array_equal(found[key], value, strict=True)


@pytest.mark.parametrize("extra", [("posix", "system"), ("builtins", "eval"), ("torch", "load")])
def test_any_other_name_in_an_old_file_is_refused(tmp_path, state, extra):
  path = tmp_path / "evil.pth"
  write_old_torch_file(path, state, extra=extra)
  with pytest.raises(ValueError, match=f"{extra[0]}.{extra[1]}.*refused"):
    read_torch_file(path)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8, 0.99])
def test_an_old_file_that_is_cut_is_an_error_that_names_it(tmp_path, state, share):
  path = tmp_path / "cut.pth"
  write_old_torch_file(path, state)
  content = path.read_bytes()
  path.write_bytes(content[: int(share * len(content))])
  with pytest.raises(ValueError, match=r"cut\.pth"):
    read_torch_file(path)


def test_an_old_file_cannot_ask_for_more_memory_than_it_has_bytes(tmp_path):
  path = tmp_path / "large.pth"
  write_old_torch_file(path, {"a": np.zeros(1000, np.float32)})
  content = path.read_bytes()
  number = b"M" + (1000).to_bytes(2, "little")
  assert number in content
  path.write_bytes(content.replace(number, b"J" + (2**30).to_bytes(4, "little")))
  with pytest.raises(ValueError, match="more than the file has"):
    read_torch_file(path)


@pytest.mark.parametrize(
  "content", [b"", b"text", pickle.dumps(5), pickle.dumps(print)], ids=["", "text", "5", "print"]
)
def test_a_file_of_something_else_is_refused(tmp_path, content):
  path = tmp_path / "other.pth"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=r"neither a zip archive.*1\.6"):
    read_torch_file(path)
