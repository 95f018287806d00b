"""The perceptual distance: its NumPy twin, its range, its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import numpy_net
from tests.models.torch_file import write_torch_file
from umr_jax.models.perceptual import load_perceptual, perceptual_distance

SHAPES = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}


@pytest.fixture(scope="module")
def state():
  rng = np.random.default_rng(0)
  state = {"classifier.1.bias": np.zeros(3, np.float32)}
  for index, (features, channels, size) in SHAPES.items():
    deviation = np.sqrt(2.0 / (channels * size * size))
    weight = rng.normal(0.0, deviation, (features, channels, size, size))
    state[f"features.{index}.weight"] = weight.astype(np.float32)
    state[f"features.{index}.bias"] = rng.normal(0.0, 0.1, features).astype(np.float32)
  return state


@pytest.fixture(scope="module")
def params(state, tmp_path_factory):
  path = tmp_path_factory.mktemp("alexnet") / "alexnet.pth"
  write_torch_file(path, state)
  return load_perceptual(path)


@pytest.fixture
def pair(rng):
  return [jnp.asarray(rng.random((2, 64, 64, 3)), jnp.float32) for _ in range(2)]


def features(state, image):
  x = 2.0 * image.astype(np.float64) - 1.0
  x = (x - np.array([-0.030, -0.088, -0.188])) / np.array([0.458, 0.448, 0.450])
  x = x.transpose(2, 0, 1)
  for index, stride, padding, pooled in (
    (0, 4, 2, True),
    (3, 1, 2, True),
    (6, 1, 1, False),
    (8, 1, 1, False),
    (10, 1, 1, False),
  ):
    weight, bias = (state[f"features.{index}.{key}"] for key in ("weight", "bias"))
    x = numpy_net.convolve(x, weight.astype(np.float64), stride, padding)
    x = np.maximum(x + bias.astype(np.float64)[:, None, None], 0.0)
    yield x
    x = numpy_net.max_pool(x, 0) if pooled else x


def test_the_distance_matches_its_twin(state, params, pair):
  found = jax.jit(perceptual_distance)(params, *pair)
  for i in range(2):
    expected = 0.0
    for x, y in zip(*(features(state, np.asarray(image[i])) for image in pair), strict=True):
      norms = np.linalg.norm(x, axis=0) * np.linalg.norm(y, axis=0)
      cosine = (x * y).sum(axis=0) / np.maximum(norms, 1e-12)
      expected += (1.0 - cosine).mean()
    np.testing.assert_allclose(found[i], expected, rtol=1e-4)


def test_equal_images_are_at_distance_zero_and_order_does_not_matter(params, pair):
  a, b = pair
  run = jax.jit(perceptual_distance)
  np.testing.assert_allclose(run(params, a, a), 0.0, atol=1e-5)
  np.testing.assert_allclose(run(params, a, b), run(params, b, a), rtol=1e-5)
  assert (run(params, a, b) > 0.0).all()


def test_black_images_have_finite_gradients(params, pair):
  black = jnp.zeros_like(pair[0])
  run = jax.jit(jax.grad(lambda params, a: jnp.sum(perceptual_distance(params, a, pair[1])), 1))
  gradient = run(params, black)
  assert np.isfinite(gradient).all()
  # Features that are all zero have no direction.
  dead = jax.tree.map(jnp.zeros_like, params)
  gradient = run(dead, black)
  assert np.isfinite(gradient).all()


def test_small_images_are_refused(params):
  with pytest.raises(ValueError, match="32 pixels"):
    perceptual_distance(params, jnp.zeros((1, 31, 40, 3)), jnp.zeros((1, 31, 40, 3)))


def test_files_without_alexnet_are_refused_and_missing_ones_are_named(tmp_path, state):
  path = tmp_path / "other.pth"
  write_torch_file(path, {k: v for k, v in state.items() if "features.6" not in k})
  with pytest.raises(ValueError, match=r"features\.6.*alexnet-owt"):
    load_perceptual(path)
  with pytest.raises(FileNotFoundError, match="alexnet-owt"):
    load_perceptual(tmp_path / "none.pth")
