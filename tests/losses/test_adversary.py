"""The adversarial term: opposite gradients, a closed form, and views that keep to themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.geometry import quaternion
from umr_jax.losses.adversary import adversarial_loss, random_views, reverse_gradient


def _discriminator(images):
  return jnp.sum(images, axis=(1, 2, 3)) - 3.0


@pytest.fixture
def images(rng):
  real, fake = rng.random((2, 5, 4, 4, 2)).astype(np.float32)
  return jnp.asarray(real), jnp.asarray(fake)


def test_reversed_gradient_keeps_the_value():
  x = jnp.array([1.0, -2.0])
  value, pull = jax.vjp(lambda x: reverse_gradient(x, 0.2), x)
  np.testing.assert_array_equal(value, x)
  np.testing.assert_allclose(pull(jnp.array([3.0, 4.0]))[0], [-0.6, -0.8], rtol=1e-6)


def test_matches_the_cross_entropy(images):
  real, fake = images
  on_real, on_fake = (1 / (1 + np.exp(-np.asarray(_discriminator(x), np.float64))) for x in images)
  expected = -0.5 * (np.log(on_real) + np.log(1 - on_fake))
  loss = adversarial_loss(_discriminator, real=real, fake=fake, reversal=0.2)
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_fakes_get_the_gradient_against_the_discriminator(images):
  real, fake = images

  def loss(offset, fake, real, reversal):
    return adversarial_loss(
      lambda images: _discriminator(images) + offset, real=real, fake=fake, reversal=reversal
    ).sum()

  on_discriminator, on_fake, on_real = jax.grad(loss, argnums=(0, 1, 2))(0.0, fake, real, 0.2)
  assert (on_real == 0.0).all()
  # Against a plain gradient: the same for the discriminator, -0.2 times it for the fakes.
  plain_discriminator, plain_fake, _ = jax.grad(loss, argnums=(0, 1, 2))(0.0, fake, real, -1.0)
  np.testing.assert_allclose(on_discriminator, plain_discriminator, rtol=1e-6)
  np.testing.assert_allclose(on_fake, -0.2 * plain_fake, rtol=1e-5)
  # Following it downhill makes the fakes look real to the discriminator.
  assert (_discriminator(fake - 0.5 * on_fake) > _discriminator(fake)).all()


def test_views_turn_about_the_cameras_vertical_and_belong_to_the_image(rng):
  cameras = jnp.asarray(rng.normal(size=(64, 7)), jnp.float32)
  cameras = cameras.at[:, 3:].set(quaternion.normalize(cameras[:, 3:]))
  index = jnp.arange(64)
  turned = random_views(cameras, index, jax.random.key(0))
  np.testing.assert_array_equal(turned[:, :3], cameras[:, :3])
  before, after = (np.asarray(quaternion.to_matrix(c[:, 3:])) for c in (cameras, turned))
  turn = after @ np.swapaxes(before, 1, 2)
  np.testing.assert_allclose(turn[:, 1], np.tile([0.0, 1.0, 0.0], (64, 1)), atol=1e-5)
  angle = np.rad2deg(np.arctan2(turn[:, 0, 2], turn[:, 0, 0]))
  np.testing.assert_allclose(angle, np.round(angle), atol=0.05)
  assert angle.min() > -1e-2 and angle.max() > 90.0 and len(np.unique(np.round(angle))) > 30
  again = random_views(cameras[7:9], index[7:9], jax.random.key(0))
  np.testing.assert_array_equal(again, turned[7:9])
  gradient = jax.grad(lambda c: random_views(c, index, jax.random.key(0)).sum())(cameras)
  assert (gradient == 0.0).all()
