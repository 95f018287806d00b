"""ResNet-18's sizes and activations; the encoder's codes, and parameters that fit all sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.models.encoder import Encoder, ResNet18
from umr_jax.models.initialize import initialize


@pytest.mark.parametrize(("size", "expected"), [(64, 2), (96, 3), (100, 4), (256, 8)])
def test_the_last_map_is_a_32nd_of_the_image_rounded_up(size, expected):
  images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
  net = ResNet18(8)
  shape = jax.eval_shape(
    lambda x: net.init_with_output(jax.random.key(0), x, train=True)[0], images
  )
  assert shape.shape == (2, expected, expected, 64)


def test_the_published_width_has_11_18_million_parameters():
  params, _ = initialize(ResNet18(64), image_size=64, seed=0)
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 11_176_512


def test_activations_neither_vanish_nor_explode_at_the_start(rng):
  net = ResNet18(8)
  params, stats = initialize(net, image_size=64, seed=0)
  images = jnp.asarray(rng.normal(size=(4, 64, 64, 3)), jnp.float32)
  variables = {"params": params, "batch_stats": stats}
  maps, _ = jax.jit(lambda v, x: net.apply(v, x, train=True, mutable=["batch_stats"]))(
    variables, images
  )
  assert 0.1 < float(jnp.std(maps)) < 10.0


ENCODER = Encoder(width=8, feature_size=20, code_size=12, sample_code=True)


@pytest.fixture(scope="module")
def variables():
  params, stats = initialize(ENCODER, image_size=64, seed=0)
  return {"params": params, "batch_stats": stats}


@functools.partial(jax.jit, static_argnames="train")
def encode(variables, images, noise=None, *, train):
  return ENCODER.apply(variables, images, train=train, noise=noise, mutable=["batch_stats"])[0]


@pytest.mark.parametrize("size", [64, 96, 100, 256])
def test_the_parameters_do_not_depend_on_the_image_size(variables, size):
  images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
  encoding = jax.eval_shape(lambda v, x: encode(v, x, train=True), variables, images)
  cells = -(-size // 32)
  shapes = tuple(leaf.shape for leaf in jax.tree.leaves(encoding))
  assert shapes == ((2, 20), (2, 12), (2, 12), (2, cells, cells, 64))


def test_the_code_is_the_mean_without_noise_and_moves_with_it(variables, rng):
  images = jnp.asarray(rng.random((4, 64, 64, 3)), jnp.float32)
  noise = jnp.asarray(rng.normal(size=(4, 12)), jnp.float32)
  _, mu, code, _ = encode(variables, images, train=False)
  np.testing.assert_array_equal(code, mu)
  _, mu, once, _ = encode(variables, images, noise, train=False)
  _, _, twice, _ = encode(variables, images, 2.0 * noise, train=False)
  np.testing.assert_allclose(twice - mu, 2.0 * (once - mu), rtol=1e-4, atol=1e-5)
  assert ((once - mu) * noise > 0.0).all()


def test_without_sampling_there_is_no_variance_head():
  encoder = Encoder(width=8, feature_size=20, code_size=12, sample_code=False)
  params, _ = initialize(encoder, image_size=64, seed=0)
  assert "logvar" not in params
  assert "logvar" in initialize(ENCODER, image_size=64, seed=0)[0]
