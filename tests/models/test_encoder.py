"""The encoder: every image size with one set of parameters, and the code's draw."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.models.encoder import Encoder
from umr_jax.models.initialize import initialize

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
