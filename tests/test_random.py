"""Keys: every purpose has its own, and what is drawn for an image belongs to the image."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from umr_jax.random import Purpose, per_image_keys, run_key, run_seed


def drawn(index, key):
  return np.asarray(jax.vmap(jax.random.uniform)(per_image_keys(jax.random.key(key), index)))


def test_a_draw_belongs_to_the_image_and_not_to_its_place_in_the_batch():
  every = drawn(jnp.arange(8), 3)
  np.testing.assert_array_equal(drawn(jnp.array([6, 2]), 3), every[[6, 2]])
  assert len(np.unique(every)) == 8
  assert (drawn(jnp.arange(8), 4) != every).all()


def test_no_two_purposes_rounds_or_seeds_share_a_stream():
  every = list(itertools.product((0, 1, 2), Purpose, ((), (0,), (1,), (0, 0))))
  keys = {tuple(jax.random.key_data(run_key(s, p, *n)).tolist()) for s, p, n in every}
  seeds = {run_seed(s, p, *n) for s, p, n in every}
  assert len(keys) == len(seeds) == len(every)
  assert min(seeds) >= 0


def test_keys_are_those_of_the_runs_of_before():
  """Their numbers are part of every result that names a seed."""
  assert [(p.name, p.value) for p in Purpose] == [
    ("NETWORK", 1),
    ("DISCRIMINATOR", 2),
    ("BATCHES", 3),
    ("TRAINING", 4),
    ("VISUAL_HULL", 5),
    ("PSEUDO_LABELS", 6),
    ("VIEW_SEARCH", 7),
  ]
  assert run_seed(0, Purpose.NETWORK, 1) == 1328479793581247105
  np.testing.assert_array_equal(
    jax.random.key_data(run_key(0, Purpose.TRAINING)), [2285895361, 433833334]
  )
