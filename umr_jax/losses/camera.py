"""The camera hypotheses of an image: their weights in expectations, and the terms they get."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from umr_jax.geometry.camera import Camera
from umr_jax.random import per_image_keys
from umr_jax.types import checked


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hypotheses:
  """The cameras under which the images of a batch are explained."""

  cameras: Float[Array, "B K 7"]
  probabilities: Float[Array, "B K"]  # the weights of expectations over them
  chosen: Int[Array, "B"]  # the one that is rendered with texture
  alpha: Float[Array, "B K H W"] | None = None  # silhouettes, where they are rendered already


@checked
def sample_hypothesis(
  logits: Float[Array, "B K"], index: Int[Array, "B"], key: PRNGKeyArray
) -> Int[Array, "B"]:
  """A camera hypothesis per image, sampled with its probability under the image's own key.

  Args:
    logits: of the predicted probabilities.
    index: of each image in its split; its sample does not depend on the rest of the batch.
    key: of the step.

  Source: Li et al. 2020, supplementary 2.2; Insafutdinov and Dosovitskiy 2018.
  """
  return jax.vmap(jax.random.categorical)(per_image_keys(key, index), logits)


@checked
def camera_entropy(logits: Float[Array, "*B K"]) -> Float[Array, "*B"]:
  """Entropy of the distribution over camera hypotheses.

  Args:
    logits: finite unnormalised log-probabilities of the K hypotheses.

  Returns:
    One value per image in nats, in [0, log K]. A positive weight favours one hypothesis, a negative
    one keeps several alive.

  Source: Kulkarni et al. 2019 (CSM), which maximises it; the released models of Li et
    al. 2020 minimise it.

  Departs: computed from logits, so that a probability that rounds to zero needs no epsilon.
  """
  log_probs = jax.nn.log_softmax(logits, axis=-1)
  return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)


@checked
def responsibilities(
  losses: Float[Array, "*B K"], logits: Float[Array, "*B K"], *, temperature: float
) -> Float[Array, "*B K"]:
  """The responsibility of each camera hypothesis for an image, given the image's loss under it.

  The posterior of a mixture. The network's own probabilities are its prior: a hypothesis that is
  not expected gets little gradient from an image that it would fit by chance.

  Args:
    losses: of the image under each hypothesis.
    logits: of the predicted probabilities.
    temperature: the difference in loss that makes a hypothesis e times less responsible.

  Returns:
    softmax(log p - losses / temperature), with no gradient.

  Source: not in Li et al. 2020, whose expectation is over the predicted probabilities.
  """
  log_probs = jax.nn.log_softmax(logits, axis=-1)
  score = log_probs - losses / temperature
  return jax.lax.stop_gradient(jax.nn.softmax(score, axis=-1))


@checked
def camera_posterior_loss(
  logits: Float[Array, "*B K"], responsibility: Float[Array, "*B K"]
) -> Float[Array, "*B"]:
  """Cross-entropy from the responsibilities to the predicted probabilities.

  Args:
    logits: of the predicted probabilities.
    responsibility: the target, from `responsibilities`.

  Returns:
    One value per image in nats.

  Departs: in Li et al. 2020 probabilities get their gradient from the expected loss alone: the
    difference between hypotheses' losses times their probability, small where it matters most.
  """
  return -jnp.sum(responsibility * jax.nn.log_softmax(logits, axis=-1), axis=-1)


@checked
def target_camera_loss(
  *, cameras: Float[Array, "B 7"], target: Float[Array, "B 7"]
) -> Float[Array, "B"]:
  """How far the network's cameras are from those that pose search found.

  Args:
    cameras: the network's, the hypothesis in question of each image.
    target: the cameras found.

  Returns:
    sin^2 of half the angle between both rotations, a quarter of the squared relative difference of
    scales, and the squared distance of translations.

  Departs: the cameras of Li et al. 2020 get the mask and semantic terms alone.
  """
  found, wanted = Camera.unpack(cameras), Camera.unpack(target)
  dot = jnp.sum(found.quaternion * wanted.quaternion, axis=-1)
  growth = jnp.square((found.scale - wanted.scale) / wanted.scale)
  shift = jnp.sum(jnp.square(found.translation - wanted.translation), axis=-1)
  return 1.0 - jnp.square(dot) + 0.25 * growth + shift
