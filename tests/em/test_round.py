"""The compiled functions of a round: where its network starts."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.tiny import tiny_config
from umr_jax.em.round import make_round


@pytest.fixture
def standard_promotion():
  """Optax promotes integer step counts to floats by itself."""
  with jax.numpy_dtype_promotion("standard"):
    yield


def test_no_round_of_a_seed_starts_as_a_round_of_another(tmp_path, standard_promotion):
  """The start of round 1 of seed 0 was that of round 0 of seed 1."""
  config = tiny_config(tmp_path)
  config = dataclasses.replace(config, em=dataclasses.replace(config.em, hypotheses=(2, 2)))
  starts = {}
  for seed in (0, 1):
    seeded = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed))
    for index in (0, 1):
      starts[seed, index] = make_round(seeded, index=index).init_train_state(0).params
  again = make_round(config, index=1).init_train_state(0).params
  kernels = {at: params["shape_head"]["offsets"]["kernel"] for at, params in starts.items()}
  np.testing.assert_array_equal(again["shape_head"]["offsets"]["kernel"], kernels[0, 1])
  assert len({kernel.tobytes() for kernel in kernels.values()}) == 4
