"""The discriminator: the published layers, and whether it can tell anything apart."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from umr_jax.models.discriminator import Discriminator, make_discriminator
from umr_jax.models.initialize import draw_variables


def _params(size, channels):
  images = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
  return draw_variables(Discriminator(), images, seed=0)["params"]


# As in the released code: 46.8 k parameters for silhouettes, 47.4 k for colours, at 256 px.
@pytest.mark.parametrize(("channels", "count"), [(1, 46_818), (3, 47_394)])
def test_has_the_published_size(channels, count):
  params = _params(256, channels)
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
  assert params["logit"]["kernel"].shape == (256, 1)


@pytest.mark.parametrize("size", [32, 48])
def test_classifies_small_renders(size, rng):
  discriminator = make_discriminator(_params(size, 1))
  images = jnp.asarray(rng.random((3, size, size, 1)), jnp.float32)
  logits = discriminator(images)
  assert logits.shape == (3,) and np.isfinite(logits).all()
  np.testing.assert_allclose(discriminator(images[1:2])[0], logits[1], rtol=1e-5)


def test_learns_to_tell_tall_from_wide():
  def boxes(tall, shift):
    images = np.zeros((8, 32, 32, 1), np.float32)
    for i, image in enumerate(images):
      start = 2 + i + shift
      if tall:
        image[4:28, start : start + 8] = 1.0
      else:
        image[start : start + 8, 4:28] = 1.0
    return jnp.asarray(images)

  params, optimizer = _params(32, 1), optax.adam(3e-3)

  def loss(params, real, fake):
    discriminator = make_discriminator(params)
    return jnp.mean(jax.nn.softplus(-discriminator(real)) + jax.nn.softplus(discriminator(fake)))

  @jax.jit
  def step(params, state):
    gradient = jax.grad(loss)(params, boxes(True, 0), boxes(False, 0))
    updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state

  with jax.numpy_dtype_promotion("standard"):
    state = optimizer.init(params)
    for _ in range(60):
      params, state = step(params, state)
  discriminator = make_discriminator(params)
  # One pixel on from where each box was in training.
  assert (discriminator(boxes(True, 1)[:6]) > 0.0).all() and (
    discriminator(boxes(False, 1)[:6]) < 0.0
  ).all()
