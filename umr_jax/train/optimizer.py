"""Adam with the paper's schedule, and the alternatives that a config may name."""

import jax.numpy as jnp
import optax

from umr_jax.config.settings import TrainConfig


def learning_rate(config: TrainConfig, *, steps: int) -> optax.Schedule:
  """The learning rate as a function of the steps taken since the network was new.

  `inverse`, the default, is the released code's rate / (1 + 5e-4 i), which has halved after 2000
  steps. `halving` takes the paper's "a factor of 0.5 every 2000 iterations" (supplementary 2.3) as
  geometric decay, which leaves nothing to learn after about 14,000 steps. `cosine` falls to 1% at
  `steps`. All are multiplied by a linear warm-up over `warmup_steps`.

  Args:
    config: the rate, the schedule's name and its lengths.
    steps: how many steps the network will be trained for; used by `cosine` alone.

  Returns:
    step -> rate.

  Source: Li et al. 2020, supplementary 2.3.
  """
  rate = config.learning_rate
  schedules = {
    "halving": optax.exponential_decay(rate, config.halving_steps, 0.5, staircase=True),
    # The first update has i = 1.
    "inverse": lambda step: rate / (1.0 + 5e-4 * (jnp.float32(step) + 1.0)),
    "cosine": optax.cosine_decay_schedule(rate, max(steps, 1), alpha=0.01),
    "constant": optax.constant_schedule(rate),
  }
  schedule = schedules[config.schedule]
  if not config.warmup_steps:
    return schedule
  warmup = config.warmup_steps
  return lambda step: schedule(step) * optax.linear_schedule(1.0 / warmup, 1.0, warmup)(step)


def make_optimizer(config: TrainConfig, *, steps: int) -> optax.GradientTransformation:
  """Adam(0.9, 0.999, 1e-8), after clipping by the global norm where the config asks for it.

  Args:
    config: the learning rate, its schedule, and the norm.
    steps: how many steps the network will be trained for.

  Source: Li et al. 2020, supplementary 2.3; betas as in the ancestors of UMR.
  """
  clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
  return optax.chain(clip, optax.adam(learning_rate(config, steps=steps)))
