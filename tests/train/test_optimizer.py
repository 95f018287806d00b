"""Learning rates: the published values, and warm-up."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from umr_jax.config.settings import TrainConfig
from umr_jax.train.optimizer import learning_rate, make_optimizer


@pytest.mark.parametrize(
  ("schedule", "values"),
  [
    # (updates done, rate): the first update of `inverse` has i = 1.
    ("inverse", {0: 9.995e-5, 1999: 5e-5, 3999: 3.333e-5, 19999: 9.09e-6}),
    ("halving", {0: 1e-4, 1999: 1e-4, 2000: 5e-5, 4000: 2.5e-5}),
    ("constant", {0: 1e-4, 9999: 1e-4}),
    ("cosine", {0: 1e-4, 5000: 5.05e-5, 10000: 1e-6}),
  ],
)
def test_schedules_take_their_published_values(schedule, values):
  rate = learning_rate(TrainConfig(learning_rate=1e-4, schedule=schedule), steps=10000)
  for step, expected in values.items():
    np.testing.assert_allclose(rate(jnp.int32(step)), expected, rtol=1e-3)


def test_warm_up_rises_to_the_schedule():
  config = TrainConfig(learning_rate=1e-3, schedule="constant", warmup_steps=10)
  rate = learning_rate(config, steps=100)
  rates = [float(rate(jnp.int32(step))) for step in range(12)]
  np.testing.assert_allclose(rates[0], 1e-4, rtol=1e-5)
  assert all(np.diff(rates[:10]) > 0)
  np.testing.assert_allclose(rates[10:], 1e-3, rtol=1e-5)


def test_clipping_bounds_what_adam_sees():
  params = {"w": jnp.zeros(2)}
  gradient = {"w": jnp.array([300.0, 400.0])}
  optimizer = make_optimizer(TrainConfig(clip_norm=1.0), steps=10)
  _, state = optimizer.update(gradient, optimizer.init(params), params)
  moment = optax.tree_utils.tree_get(state, "mu")["w"]
  np.testing.assert_allclose(moment, [0.06, 0.08], rtol=1e-5)
