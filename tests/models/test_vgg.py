"""VGG: its NumPy twin, its two files, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import numpy_net
from tests.models.torch_file import write_torch_file
from umr_jax.models.vgg import load_vgg, vgg_features

BLOCKS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
CHANNELS = (64, 128, 256, 512, 512)


def vgg_state(depth):
  rng = np.random.default_rng(depth)
  state, index, channels = {"classifier.0.weight": np.zeros((2, 2), np.float32)}, 0, 3
  for count, width in zip(BLOCKS[depth], CHANNELS, strict=True):
    for _ in range(count):
      weight = rng.normal(0.0, np.sqrt(2.0 / (9 * channels)), (width, channels, 3, 3))
      state[f"features.{index}.weight"] = weight.astype(np.float32)
      state[f"features.{index}.bias"] = rng.normal(0.0, 0.1, width).astype(np.float32)
      index, channels = index + 2, width
    index += 1
  return state


def pool(x):
  channels, rows, columns = (x.shape[0], x.shape[1] // 2, x.shape[2] // 2)
  x = x[:, : 2 * rows, : 2 * columns].reshape(channels, rows, 2, columns, 2)
  return x.max(axis=(2, 4))


def twin(state, image, depth):
  """{layer: map [C, h, w]} of one normalized image [3, H, W]."""
  maps, x, index = {}, image.astype(np.float64), 0
  for block, count in enumerate(BLOCKS[depth], 1):
    x = pool(x) if block > 1 else x
    for i in range(1, count + 1):
      weight, bias = (state[f"features.{index}.{key}"].astype(float) for key in ("weight", "bias"))
      x = np.maximum(numpy_net.convolve(x, weight, 1, 1) + bias[:, None, None], 0.0)
      maps[f"conv{block}_{i}"], index = x, index + 2
    index += 1
  return maps


@pytest.fixture(scope="module", params=[16, 19])
def network(request, tmp_path_factory):
  state = vgg_state(request.param)
  path = tmp_path_factory.mktemp("vgg") / "vgg.pth"
  write_torch_file(path, state)
  return request.param, state, load_vgg(path, depth=request.param)


def test_the_layers_match_their_twin(network, rng):
  depth, state, params = network
  image = rng.random((35, 32, 3)).astype(np.float32)
  normal = (image - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
  expected = twin(state, normal.transpose(2, 0, 1), depth)
  run = jax.jit(vgg_features, static_argnames="layers")
  layers = ("conv5_2", f"conv5_{3 if depth == 16 else 4}")
  found = run(params, jnp.asarray(image[None]), layers=layers)[0]
  assert found.shape == (2, 2, 1024)
  deep = np.concatenate([expected[name] for name in layers]).transpose(1, 2, 0)
  np.testing.assert_allclose(found, deep, rtol=1e-3, atol=1e-4 * deep.max())
  mixed = run(params, jnp.asarray(image[None]), layers=("conv3_3", "conv4_2"))[0]
  shallow = np.concatenate([pool(expected["conv3_3"]), expected["conv4_2"]]).transpose(1, 2, 0)
  np.testing.assert_allclose(mixed, shallow, rtol=1e-3, atol=1e-4 * shallow.max())


def test_an_image_has_the_same_features_alone_and_in_a_batch(network, rng):
  _, _, params = network
  images = rng.random((3, 32, 32, 3)).astype(np.float32)
  run = jax.jit(vgg_features, static_argnames="layers")
  together = run(params, jnp.asarray(images), layers=("conv4_3",))
  alone = run(params, jnp.asarray(images[1:2]), layers=("conv4_3",))
  np.testing.assert_allclose(together[1:2], alone, rtol=1e-4, atol=1e-4)


def test_a_layer_that_is_not_there_is_refused(network):
  _, _, params = network
  with pytest.raises(ValueError, match="conv6_1"):
    vgg_features(params, jnp.zeros((1, 32, 32, 3)), layers=("conv6_1",))


def test_vgg16_and_vgg19_are_not_taken_for_each_other(tmp_path):
  path = tmp_path / "vgg.pth"
  write_torch_file(path, vgg_state(16))
  with pytest.raises(ValueError, match=r"13 convolutions.*VGG-19's 16.*vgg19-dcbb9e9d"):
    load_vgg(path, depth=19)


def test_files_without_vgg_are_refused_and_missing_ones_are_named(tmp_path):
  path = tmp_path / "other.pth"
  state = vgg_state(16)
  state["features.28.weight"] = state["features.28.weight"][:100]
  write_torch_file(path, state)
  with pytest.raises(ValueError, match=r"features\.28.*\(100, 512, 3, 3\).*vgg16-397923af"):
    load_vgg(path, depth=16)
  with pytest.raises(FileNotFoundError, match="vgg19-dcbb9e9d"):
    load_vgg(tmp_path / "none.pth", depth=19)
