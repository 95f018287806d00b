"""The part network: sizes, symmetry, starts, and published weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

from umr_jax.models.convolution import convolve
from umr_jax.models.initialize import initialize
from umr_jax.models.pretrained import read_torch_file
from umr_jax.parts.network import PartNet, ResNet50, _aligned, _resnet50_layers, resnet50_variables

PUBLISHED = PartNet(num_parts=4, kind="resnet50", width=4, norm="batch")


def shape_of(net, size):
  images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
  return jax.eval_shape(
    lambda x: net.init_with_output(jax.random.key(0), x, train=False)[0], images
  ).shape


@pytest.mark.parametrize("kind", ["small", "resnet50", "efficientnet"])
@pytest.mark.parametrize("size", [48, 100, 128])
def test_logits_are_a_quarter_of_the_image_and_background_is_one_more(kind, size):
  net = PartNet(num_parts=4, kind=kind, width=4)
  assert shape_of(net, size) == (2, size // 4, size // 4, 5)


def test_another_kind_is_refused():
  with pytest.raises(ValueError, match="expected one of small, resnet50, efficientnet"):
    shape_of(PartNet(num_parts=4, kind="large"), 48)


def test_logits_start_at_order_one_and_differ_between_pixels(rng):
  net = PartNet(num_parts=4, width=8)
  params, stats = initialize(net, image_size=64, seed=0)
  assert stats == {}
  images = jnp.asarray(rng.random((2, 64, 64, 3)), jnp.float32)
  logits = jax.jit(lambda p, x: net.apply({"params": p}, x, train=True))(params, images)
  assert 0.1 < float(jnp.std(logits)) < 10.0
  assert float(jnp.std(logits, axis=(1, 2)).min()) > 0.01
  loss = jax.jit(
    jax.grad(lambda p: jnp.sum(jnp.square(net.apply({"params": p}, images, train=True))))
  )
  grads = loss(params)
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
  assert all((g != 0.0).any() for g in jax.tree.leaves(grads))


@pytest.mark.parametrize("size", [5, 9])  # a product of patches; the library's convolution
def test_a_dilated_convolution_matches_the_loop(rng, size):
  x = rng.normal(size=(1, size, size, 2)).astype(np.float32)
  kernel = rng.normal(size=(3, 3, 2, 4)).astype(np.float32)
  found = convolve(jnp.asarray(x), jnp.asarray(kernel), padding=1, dilation=2)
  padded = np.pad(x[0], ((1, 1), (1, 1), (0, 0)))
  out = size + 2 - 4
  expected = np.zeros((out, out, 4))
  for i, j, a, b in np.ndindex(out, out, 3, 3):
    expected[i, j] += padded[i + 2 * a, j + 2 * b] @ kernel[a, b]
  np.testing.assert_allclose(found[0], expected, atol=1e-5)


@pytest.mark.parametrize(("size", "expected"), [(64, 9), (128, 17), (256, 33), (100, 13)])
def test_the_published_network_keeps_an_eighth_and_one(size, expected):
  net = ResNet50(4)
  images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
  shape = jax.eval_shape(
    lambda x: net.init_with_output(jax.random.key(0), x, train=False)[0], images
  ).shape
  assert shape == (2, expected, expected, 128)


def test_a_ramp_with_aligned_corners_is_read_at_pixel_centres():
  # 9 values from pixel 0 to pixel 63, each its own position.
  ramp = jnp.linspace(0.0, 63.0, 9)
  x = jnp.stack(jnp.broadcast_arrays(ramp[None, :], ramp[:, None]), axis=-1)[None]
  found = _aligned(x, 16)
  np.testing.assert_allclose(found[0, 0, :, 0], 4.0 * np.arange(16) + 1.5, rtol=1e-5)
  np.testing.assert_allclose(found[0, :, 0, 1], 4.0 * np.arange(16) + 1.5, rtol=1e-5)


@pytest.fixture(scope="module")
def published():
  return initialize(PUBLISHED, image_size=64, seed=0)


@pytest.fixture(scope="module")
def state(published):
  """A random state dict of torchvision's ResNet-50, four channels wide."""
  params, _ = published
  flat = traverse_util.flatten_dict(params["resnet"])
  rng, tensors = np.random.default_rng(3), {"fc.weight": np.zeros((10, 128), np.float32)}
  for source, target in _resnet50_layers().items():
    if (*target, "kernel") in flat:
      kernel = np.transpose(flat[(*target, "kernel")], (3, 2, 0, 1)).shape
      tensors[f"{source}.weight"] = rng.normal(size=kernel).astype(np.float32) * 0.1
    else:
      channels = flat[(*target, "scale")].shape
      for suffix in ("weight", "bias", "running_mean", "running_var"):
        tensors[f"{source}.{suffix}"] = rng.uniform(0.5, 1.5, channels).astype(np.float32)
  return tensors


def test_a_file_fills_every_tensor_of_the_network_and_nothing_else(tmp_path, published, state):
  params, stats = published
  safetensors.numpy.save_file(state, tmp_path / "resnet50.safetensors")
  found = read_torch_file(tmp_path / "resnet50.safetensors")
  new_params, new_stats = resnet50_variables(found, params, stats)
  assert len(_resnet50_layers()) == 2 * 53
  for new, old in ((new_params["resnet"], params["resnet"]), (new_stats, stats)):
    new, old = traverse_util.flatten_dict(new), traverse_util.flatten_dict(old)
    assert new.keys() == old.keys()
    assert all((new[path] != old[path]).any() for path in new)
  np.testing.assert_array_equal(
    new_params["resnet"]["layer3_5"]["conv2"]["kernel"][0, 2],
    state["layer3.5.conv2.weight"][:, :, 0, 2].T,
  )
  np.testing.assert_array_equal(
    new_stats["resnet"]["layer2_0"]["downsample_bn"]["var"],
    state["layer2.0.downsample.1.running_var"],
  )
  np.testing.assert_array_equal(new_params["logits6"]["kernel"], params["logits6"]["kernel"])


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda s: s.pop("layer2.1.bn2.bias"), "no tensor 'layer2.1.bn2.bias'; is it a ResNet-50"),
    (lambda s: s.pop("layer4.2.bn3.weight"), "expected a ResNet-50's"),
    (lambda s: s.update({"conv1.weight": np.zeros((64, 3, 7, 7))}), "has width 64"),
  ],
)
def test_files_of_other_networks_are_refused(published, state, change, message):
  state = dict(state)
  change(state)
  with pytest.raises(ValueError, match=message):
    resnet50_variables(state, *published)


def test_weights_do_not_fit_the_small_network(state):
  params, stats = initialize(PartNet(num_parts=4, width=8), image_size=48, seed=0)
  with pytest.raises(ValueError, match="resnet50 alone"):
    resnet50_variables(state, params, stats)
