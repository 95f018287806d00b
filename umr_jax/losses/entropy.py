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
