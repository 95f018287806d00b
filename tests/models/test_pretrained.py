"""Files of weights in three formats: what was written is read, and everything else is refused."""

import io
import pickle
import zipfile

import numpy as np
import pytest

from tests.models.numpy_net import resnet18_state
from tests.models.torch_file import write_old_torch_file, write_torch_file, write_weights
from umr_jax.models.pretrained import read_torch_file


@pytest.fixture(scope="module")
def state():
  return resnet18_state(np.random.default_rng(1))


@pytest.mark.parametrize("name", ["resnet18.pth", "model.safetensors"])
def test_files_hold_what_was_written(tmp_path, state, name):
  found = read_torch_file(write_weights(tmp_path / name, state))
  assert set(found) == set(state)
  for key, value in state.items():
    np.testing.assert_array_equal(found[key], value, strict=True)


def test_prefixes_of_training_scripts_are_dropped(tmp_path, state):
  prefixed = {f"module.{key}": value for key, value in state.items()}
  assert set(read_torch_file(write_weights(tmp_path / "a.pth", prefixed))) == set(state)


def test_transposed_tensors_are_read_through_their_strides(tmp_path):
  value = np.arange(6, dtype=np.float32).reshape(2, 3).T
  path = tmp_path / "a.pth"
  write_torch_file(path, {"a": value})
  np.testing.assert_array_equal(read_torch_file(path)["a"], value)


@pytest.mark.parametrize("extra", [("posix", "system"), ("builtins", "eval"), ("torch", "load")])
def test_any_other_name_is_refused(tmp_path, state, extra):
  path = tmp_path / "evil.pth"
  write_torch_file(path, {"conv1.weight": state["conv1.weight"]}, extra=extra)
  with pytest.raises(ValueError, match=f"{extra[0]}.{extra[1]}.*refused"):
    read_torch_file(path)


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
  path = tmp_path / "a.pth"
  write_torch_file(path, {"a": np.zeros(4, np.float32)})
  with zipfile.ZipFile(path) as archive:
    content = archive.read("archive/data.pkl")
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("archive/data.pkl", content)
    archive.writestr("archive/data/0", b"\0" * 8)
  with pytest.raises(ValueError, match="2 values; expected 4"):
    read_torch_file(path)


def test_a_missing_file_says_where_to_get_one(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"resnet18-f37072fd\.pth.*timm"):
    read_torch_file(tmp_path / "none.pth")


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, state, name):
  path = write_weights(tmp_path / name, state)
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  with pytest.raises(ValueError, match=path.name):
    read_torch_file(path)


def test_a_zip_of_something_else_is_refused(tmp_path):
  path = tmp_path / "a.pth"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("readme.txt", "nothing")
  with pytest.raises(ValueError, match=r"without a data\.pkl"):
    read_torch_file(path)


def test_a_pickle_that_is_no_state_dict_is_refused(tmp_path):
  path = tmp_path / "a.pth"
  buffer = io.BytesIO()
  pickle.dump([1, 2], buffer, protocol=2)
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("archive/data.pkl", buffer.getvalue())
  with pytest.raises(ValueError, match="list; expected a state dict"):
    read_torch_file(path)


@pytest.fixture
def old_state():
  rng = np.random.default_rng(0)
  return {
    "conv.weight": rng.normal(size=(4, 3, 2, 2)).astype(np.float32),
    "transposed": rng.normal(size=(3, 5)).astype(np.float32).T,
    "steps": np.array(7, np.int64),
  }


def test_an_old_file_holds_what_was_written(tmp_path, old_state):
  path = tmp_path / "old.pth"
  write_old_torch_file(path, old_state)
  found = read_torch_file(path)
  assert set(found) == set(old_state)
  for key, value in old_state.items():
    np.testing.assert_array_equal(found[key], value, strict=True)


@pytest.mark.parametrize("extra", [("posix", "system"), ("builtins", "eval"), ("torch", "load")])
def test_any_other_name_in_an_old_file_is_refused(tmp_path, old_state, extra):
  path = tmp_path / "evil.pth"
  write_old_torch_file(path, old_state, extra=extra)
  with pytest.raises(ValueError, match=f"{extra[0]}.{extra[1]}.*refused"):
    read_torch_file(path)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8, 0.99])
def test_an_old_file_that_is_cut_is_an_error_that_names_it(tmp_path, old_state, share):
  path = tmp_path / "cut.pth"
  write_old_torch_file(path, old_state)
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
