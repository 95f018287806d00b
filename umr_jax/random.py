"""Random numbers: which key a sample is drawn with.

Every key of a run is made here, of the run's seed and a named purpose, so that no two purposes, and
no two seeds, share a stream.
"""

import enum

import jax
import numpy as np
from jaxtyping import Array, Int, Key, PRNGKeyArray

from umr_jax.types import checked


class Purpose(enum.IntEnum):
  """What keys are for. Numbers are part of every result: none is changed, nor used again."""

  NETWORK = 1  # initial parameters; number: the round
  DISCRIMINATOR = 2  # initial parameters; number: the round
  BATCHES = 3  # the order of images and their augmentation before the network
  TRAINING = 4  # samples in a train step, which folds its own number into the key
  VISUAL_HULL = 5  # batches of the hull's fit
  PSEUDO_LABELS = 6  # sampled vertices when reconstructions label parts
  VIEW_SEARCH = 7  # the first features of its template; number: the restart


def run_key(seed: int, purpose: Purpose, *numbers: int) -> PRNGKeyArray:
  """The JAX key of one purpose.

  Args:
    seed: of the run.
    purpose: what is sampled.
    *numbers: which of several, such as the round; not negative.
  """
  key = jax.random.key(seed)
  for number in (purpose, *numbers):
    key = jax.random.fold_in(key, int(number))
  return key


def run_seed(seed: int, purpose: Purpose, *numbers: int) -> int:
  """`run_key` for what NumPy samples: a seed of 63 bits.

  Args:
    seed: of the run.
    purpose: what is sampled.
    *numbers: which of several, such as the round; not negative.
  """
  sequence = np.random.SeedSequence(seed, spawn_key=(int(purpose), *numbers))
  return int(sequence.generate_state(1, np.uint64)[0] >> 1)


@checked
def per_image_keys(key: PRNGKeyArray, index: Int[Array, "B"]) -> Key[Array, "B"]:
  """One key per image, for its random numbers.

  An image's samples then depend on neither its place in the batch nor the number of devices.

  Args:
    key: of the step, and of what is sampled.
    index: of each image in its split.

  Returns:
    The keys, one per image.
  """
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
