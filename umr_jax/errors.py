"""Endings of a run that a command turns into exit codes."""

import math


class Preempted(Exception):  # noqa: N818 (it is not an error)
  """The run was asked to stop and saved itself; the same command resumes it."""


class UsageError(Exception):
  """A command line that cannot be meant."""


class NonFiniteError(ArithmeticError):
  """A metric became NaN or infinite."""

  def __init__(self, metric: str, step: int, value: float = math.nan) -> None:
    super().__init__(
      f"metric {metric!r} is {value} at step {step}. The last checkpoint is intact; lower "
      "train.learning_rate, set train.clip_norm, or inspect the images of that step."
    )
    self.metric = metric
    self.step = step
