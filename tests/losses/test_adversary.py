"""The adversarial term: opposite gradients, a closed form, and views that keep to themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.geometry import quaternion
from umr_jax.losses.adversary import adversarial_loss, reverse_gradient, unseen_cameras


def _judge(images):
  return jnp.sum(images, axis=(1, 2, 3)) - 3.0


@pytest.fixture
def pictures(rng):
  real, fake = rng.random((2, 5, 4, 4, 2)).astype(np.float32)
  return jnp.asarray(real), jnp.asarray(fake)


def test_reversed_gradient_keeps_the_value():
  x = jnp.array([1.0, -2.0])
  value, pull = jax.vjp(lambda x: reverse_gradient(x, 0.2), x)
  np.testing.assert_array_equal(value, x)
  np.testing.assert_allclose(pull(jnp.array([3.0, 4.0]))[0], [-0.6, -0.8], rtol=1e-6)


def test_matches_the_cross_entropy(pictures):
  real, fake = pictures
  on_real, on_fake = (1 / (1 + np.exp(-np.asarray(_judge(x), np.float64))) for x in pictures)
  expected = -0.5 * (np.log(on_real) + np.log(1 - on_fake))
  loss = adversarial_loss(_judge, real=real, fake=fake, reversal=0.2)
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_the_judged_learn_against_the_judge(pictures):
  real, fake = pictures

  def loss(offset, fake, real, reversal):
    return adversarial_loss(
      lambda images: _judge(images) + offset, real=real, fake=fake, reversal=reversal
    ).sum()

  on_judge, on_fake, on_real = jax.grad(loss, argnums=(0, 1, 2))(0.0, fake, real, 0.2)
  assert (on_real == 0.0).all()
  # Against a plain gradient: the same for the judge, -0.2 times it for what is judged.
  plain_judge, plain_fake, _ = jax.grad(loss, argnums=(0, 1, 2))(0.0, fake, real, -1.0)
  np.testing.assert_allclose(on_judge, plain_judge, rtol=1e-6)
  np.testing.assert_allclose(on_fake, -0.2 * plain_fake, rtol=1e-5)
  # Following it downhill makes the fakes look real to the judge.
  assert (_judge(fake - 0.5 * on_fake) > _judge(fake)).all()


def test_views_turn_about_the_cameras_vertical_and_belong_to_the_image(rng):
  cameras = jnp.asarray(rng.normal(size=(64, 7)), jnp.float32)
  cameras = cameras.at[:, 3:].set(quaternion.normalize(cameras[:, 3:]))
  index = jnp.arange(64)
  turned = unseen_cameras(cameras, index, jax.random.key(0))
  np.testing.assert_array_equal(turned[:, :3], cameras[:, :3])
  before, after = (np.asarray(quaternion.to_matrix(c[:, 3:])) for c in (cameras, turned))
  turn = after @ np.swapaxes(before, 1, 2)
  np.testing.assert_allclose(turn[:, 1], np.tile([0.0, 1.0, 0.0], (64, 1)), atol=1e-5)
  angle = np.rad2deg(np.arctan2(turn[:, 0, 2], turn[:, 0, 0]))
  np.testing.assert_allclose(angle, np.round(angle), atol=0.05)
  assert angle.min() > -1e-2 and angle.max() > 90.0 and len(np.unique(np.round(angle))) > 30
  again = unseen_cameras(cameras[7:9], index[7:9], jax.random.key(0))
  np.testing.assert_array_equal(again, turned[7:9])
  gradient = jax.grad(lambda c: unseen_cameras(c, index, jax.random.key(0)).sum())(cameras)
  assert (gradient == 0.0).all()
