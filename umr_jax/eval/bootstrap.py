"""How far an average over a test set may be off by the choice of its images."""

from collections.abc import Callable

import numpy as np

STATISTICS: dict[str, Callable[..., np.ndarray]] = {"mean": np.mean, "median": np.median}
_RESAMPLES = 2000  # test sets that are drawn
_CHUNK = 1 << 22  # numbers drawn at once: bounds the memory


def bootstrap_interval(values: np.ndarray, *, statistic: str, seed: int) -> tuple[float, float]:
  """A 95% interval of a mean or median, by drawing test sets from the test set.

  Args:
    values: [N], one per image.
    statistic: "mean" or "median".
    seed: of the draws.

  Returns:
    The 2.5th and the 97.5th percentile of the statistic over the drawn sets.

  Raises:
    ValueError: for no values, or another statistic.

  Source: Efron 1979 (the percentile interval).
  """
  values = np.asarray(values, np.float64)
  if values.ndim != 1 or not values.size or statistic not in STATISTICS:
    raise ValueError(
      f"found {statistic!r} of values of shape {values.shape}; expected one of {list(STATISTICS)} "
      "of a list of at least one"
    )
  rng = np.random.default_rng(seed)
  rows = max(1, _CHUNK // values.size)
  results = [
    STATISTICS[statistic](
      values[rng.integers(values.size, size=(min(rows, _RESAMPLES - start), values.size))], axis=1
    )
    for start in range(0, _RESAMPLES, rows)
  ]
  low, high = np.percentile(np.concatenate(results), [2.5, 97.5])
  return float(low), float(high)
