"""Reading published weights: parity with a NumPy forward pass, and everything that is refused."""

import io
import pickle
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from tests.models.numpy_net import resnet18, resnet18_state
from tests.models.torch_file import write_torch_file
from umr_jax.models.pretrained import read_torch_file, resnet18_variables
from umr_jax.models.resnet import ResNet18


@pytest.fixture(scope="module")
def state():
  return resnet18_state(np.random.default_rng(1))


def write(path, state):
  if path.suffix == ".pth":
    write_torch_file(path, state)
  else:
    safetensors.numpy.save_file(state, path)
  return path


@pytest.mark.parametrize("name", ["resnet18.pth", "model.safetensors"])
def test_files_hold_what_was_written(tmp_path, state, name):
  found = read_torch_file(write(tmp_path / name, state))
  assert set(found) == set(state)
  for key, value in state.items():
    np.testing.assert_array_equal(found[key], value, strict=True)


@pytest.mark.parametrize("name", ["resnet18.pth", "model.safetensors"])
def test_the_encoder_computes_what_numpy_computes_from_the_same_file(tmp_path, state, small, name):
  _, params, stats = small
  found = read_torch_file(write(tmp_path / name, state))
  new_params, new_stats = resnet18_variables(found, params, stats)
  image = np.random.default_rng(2).normal(size=(96, 96, 3)).astype(np.float32)
  encoder = {
    "params": new_params["encoder"]["resnet"],
    "batch_stats": new_stats["encoder"]["resnet"],
  }
  result = jax.jit(lambda v, x: ResNet18(8).apply(v, x, train=False))(encoder, image[None])
  expected = resnet18(state, image.transpose(2, 0, 1).astype(np.float64)).transpose(1, 2, 0)
  np.testing.assert_allclose(result[0], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_filling_leaves_the_given_trees_and_the_heads_alone(state, small):
  _, params, stats = small
  before = jax.tree.map(np.copy, params)
  new_params, new_stats = resnet18_variables(state, params, stats)
  jax.tree.map(np.testing.assert_array_equal, params, before)
  assert jax.tree.map(jnp.shape, new_params) == jax.tree.map(jnp.shape, params)
  assert jax.tree.map(jnp.shape, new_stats) == jax.tree.map(jnp.shape, stats)
  for part in ("shape_head", "texture_head", "camera_heads"):
    jax.tree.map(np.testing.assert_array_equal, new_params[part], params[part])
  # All of the trunk is replaced.
  for new, old in zip(
    jax.tree.leaves(new_params["encoder"]["resnet"]),
    jax.tree.leaves(params["encoder"]["resnet"]),
    strict=True,
  ):
    assert not np.array_equal(new, old)


def test_prefixes_of_training_scripts_are_dropped(tmp_path, state):
  prefixed = {f"module.{key}": value for key, value in state.items()}
  assert set(read_torch_file(write(tmp_path / "a.pth", prefixed))) == set(state)


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
  path = write(tmp_path / name, state)
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


def test_another_width_is_refused_with_the_setting_that_helps(small):
  _, params, stats = small
  with pytest.raises(ValueError, match=r"width 4.*model\.encoder_width=4"):
    resnet18_variables(resnet18_state(np.random.default_rng(0), width=4), params, stats)


def test_another_network_is_refused(state, small):
  _, params, stats = small
  with pytest.raises(ValueError, match="expected a ResNet-18"):
    resnet18_variables({"features.0.weight": np.zeros((64, 3, 11, 11))}, params, stats)
  fewer = {key: value for key, value in state.items() if key != "layer2.0.downsample.0.weight"}
  with pytest.raises(ValueError, match=r"layer2\.0\.downsample\.0\.weight"):
    resnet18_variables(fewer, params, stats)


def test_weights_that_are_not_finite_are_refused(state, small):
  _, params, stats = small
  bad = {**state, "bn1.bias": np.full_like(state["bn1.bias"], np.nan)}
  with pytest.raises(ValueError, match=r"bn1\.bias.*not finite"):
    resnet18_variables(bad, params, stats)
