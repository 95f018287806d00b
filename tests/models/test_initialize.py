"""What networks start from: published weights compute what NumPy does, and others are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.numpy_net import resnet18, resnet18_state
from tests.models.torch_file import write_weights
from umr_jax.models.encoder import ResNet18
from umr_jax.models.initialize import resnet18_variables
from umr_jax.models.pretrained import read_torch_file


@pytest.fixture(scope="module")
def state():
  return resnet18_state(np.random.default_rng(1))


@pytest.mark.parametrize("name", ["resnet18.pth", "model.safetensors"])
def test_the_encoder_computes_what_numpy_computes_from_the_same_file(tmp_path, state, small, name):
  _, params, stats = small
  found = read_torch_file(write_weights(tmp_path / name, state))
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
