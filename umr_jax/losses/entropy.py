"""How undecided the network is between its camera hypotheses."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.types import checked


@checked
def camera_entropy(logits: Float[Array, "*B K"]) -> Float[Array, "*B"]:
  """Entropy of the distribution over camera hypotheses.

  Args:
    logits: finite unnormalised log-probabilities of the K hypotheses.

  Returns:
    One value per image in nats, in [0, log K]. A positive weight pushes towards one hypothesis, a
    negative one keeps several alive.

  Source: Kulkarni et al. 2019 (CSM), which maximises it; the released models of Li et
  al. 2020 minimise it.

  Departs: computed from logits, so that a probability that rounds to zero needs no epsilon.
  """
  log_probs = jax.nn.log_softmax(logits, axis=-1)
  return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)


@checked
def responsibilities(
  values: Float[Array, "*B K"], logits: Float[Array, "*B K"], *, temperature: float, prior: float
) -> Float[Array, "*B K"]:
  """How much each camera hypothesis answers for an image, given how badly it explains it.

  The posterior of a mixture: with a prior of 1 the network's own probabilities count, and a
  hypothesis that it does not expect learns little from an image that it would fit by chance. With a
  prior of 0 all of them compete anew at every step.

  Args:
    values: the loss of the image under each hypothesis.
    logits: of the predicted probabilities.
    temperature: the difference in loss that makes a hypothesis e times less responsible.
    prior: the power of the predicted probabilities.

  Returns:
    softmax(prior * log p - values / temperature), with no gradient.
  """
  log_probs = jax.nn.log_softmax(logits, axis=-1)
  score = prior * log_probs - values / temperature
  return jax.lax.stop_gradient(jax.nn.softmax(score, axis=-1))


@checked
def posterior_loss(
  logits: Float[Array, "*B K"], responsibility: Float[Array, "*B K"]
) -> Float[Array, "*B"]:
  """Cross-entropy from the responsibilities to the predicted probabilities.

  Departs: in the paper probabilities learn from the expected loss alone, whose gradient is the
  difference between hypotheses' losses times their probability: small where it matters most.

  Args:
    logits: of the predicted probabilities.
    responsibility: the target, from `responsibilities`.

  Returns:
    One value per image in nats.
  """
  return -jnp.sum(responsibility * jax.nn.log_softmax(logits, axis=-1), axis=-1)
