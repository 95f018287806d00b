"""Metrics of single images as a report: averages with intervals, and tables of them."""

from collections.abc import Callable

import numpy as np
from scipy import stats

from umr_jax.types import Report

STATISTICS: dict[str, Callable[..., np.ndarray]] = {"mean": np.mean, "median": np.median}
_RESAMPLES = 2000  # bootstrap test sets
_CHUNK = 1 << 22  # numbers sampled at once: bounds the memory
_MEDIANS = ("camera_error_deg", "camera_error_twin_deg")


def summarize(values: dict[str, np.ndarray], *, seed: int) -> Report:
  """Each metric's mean (for camera errors: median) as KEY, and its 95% interval as KEY_ci.

  Args:
    values: [N] per metric, one value per image.
    seed: of the bootstrap.
  """
  report: Report = {}
  for key, column in values.items():
    statistic = "median" if key in _MEDIANS else "mean"
    report[key] = float(STATISTICS[statistic](column))
    report[f"{key}_ci"] = list(bootstrap_interval(column, statistic=statistic, seed=seed))
  return report


def bootstrap_interval(values: np.ndarray, *, statistic: str, seed: int) -> tuple[float, float]:
  """A 95% interval of a mean or median, by resampling the test set with replacement.

  Args:
    values: [N], one per image.
    statistic: "mean" or "median".
    seed: of the resampling.

  Returns:
    The 2.5th and the 97.5th percentile of the statistic over the resampled sets.

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
  if values.size == 1:
    return float(values[0]), float(values[0])
  found = stats.bootstrap(
    (values,),
    STATISTICS[statistic],
    n_resamples=_RESAMPLES,
    batch=max(1, _CHUNK // values.size),
    method="percentile",
    random_state=np.random.default_rng(seed),
  ).confidence_interval
  return float(found.low), float(found.high)


def format_table(report: Report) -> str:
  """A report as lines of text: every metric with its interval, then how it was measured."""
  metrics = [key for key in report if f"{key}_ci" in report]
  width = max([len("metric"), *map(len, metrics)])
  lines = [f"{'metric':<{width}}  {'value':>7}  95% interval"]
  for key in metrics:
    digits = 1 if key.endswith("_deg") else 3
    low, high = report[f"{key}_ci"]
    lines.append(
      f"{key:<{width}}  {report[key]:>7.{digits}f}  [{low:.{digits}f}, {high:.{digits}f}]"
    )
  if "split" in report:
    lines.append(f"{report['split']} split, {report['n']} images, step {report['step']}")
  return "\n".join(lines)


def format_rows(rows: dict[str, Report]) -> str:
  """Reports side by side: a line for each metric that one of them has, a column for each report."""
  metrics = list(
    dict.fromkeys(k for report in rows.values() for k in report if f"{k}_ci" in report)
  )
  width = max([len("metric"), *map(len, metrics)])
  names = list(rows)
  lines = [f"{'metric':<{width}}" + "".join(f"  {name:>14}" for name in names)]
  for key in metrics:
    digits = 1 if key.endswith("_deg") else 3
    cells = (f"{rows[n][key]:.{digits}f}" if key in rows[n] else "" for n in names)
    lines.append(f"{key:<{width}}" + "".join(f"  {cell:>14}" for cell in cells))
  return "\n".join(lines)
