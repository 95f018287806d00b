"""The encoder: every image size with one set of parameters, and the code's draw."""

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


def encode(variables, images, *, train, seed=0, encoder=ENCODER):
  return encoder.apply(
    variables, images, train=train, rngs={"latent": jax.random.key(seed)}, mutable=["batch_stats"]
  )[0]


@pytest.mark.parametrize("size", [64, 96, 100, 256])
def test_the_parameters_do_not_depend_on_the_image_size(variables, size):
  images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
  feature, mu, code = jax.eval_shape(lambda v, x: encode(v, x, train=True), variables, images)
  assert (feature.shape, mu.shape, code.shape) == ((2, 20), (2, 12), (2, 12))


def test_the_code_is_drawn_in_training_and_is_the_mean_in_evaluation(variables, rng):
  images = jnp.asarray(rng.random((4, 64, 64, 3)), jnp.float32)
  run = jax.jit(encode, static_argnames="train")
  _, mu, first = run(variables, images, train=True, seed=0)
  _, _, second = run(variables, images, train=True, seed=1)
  assert not np.allclose(first, mu)
  assert not np.allclose(first, second)
  _, mu, code = run(variables, images, train=False)
  np.testing.assert_array_equal(code, mu)


def test_without_sampling_there_is_no_variance_head_and_no_key_is_needed(rng):
  encoder = Encoder(width=8, feature_size=20, code_size=12, sample_code=False)
  params, stats = initialize(encoder, image_size=64, seed=0)
  assert "logvar" not in params
  images = jnp.asarray(rng.random((2, 64, 64, 3)), jnp.float32)
  variables = {"params": params, "batch_stats": stats}
  (_, mu, code), _ = encoder.apply(variables, images, train=True, mutable=["batch_stats"])
  np.testing.assert_array_equal(code, mu)
