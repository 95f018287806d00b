"""Scalars on their way out: the non-finite check, writers, the progress bar."""

import importlib.util
import json
import math
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any, Self

import jax
import numpy as np
import tqdm
from absl import logging
from jax.typing import ArrayLike

from umr_jax.errors import NonFiniteError
from umr_jax.files import write_text
from umr_jax.types import Report


def to_floats(metrics: Mapping[str, ArrayLike]) -> dict[str, float]:
  """Scalar metrics on the host, fetched in one transfer.

  Raises:
    ValueError: naming a metric that is not a scalar.
  """
  fetched = jax.device_get(dict(metrics))
  for name, value in fetched.items():
    if np.size(value) != 1:
      raise ValueError(f"metric {name!r} has shape {np.shape(value)}; expected one number.")
  return {name: float(np.reshape(value, ())) for name, value in fetched.items()}


def check_finite(metrics: Mapping[str, ArrayLike], step: int) -> None:
  """Stops a run whose numbers have gone bad.

  Args:
    metrics: scalars by name.
    step: the step that they belong to.

  Raises:
    NonFiniteError: naming the first metric that is NaN or infinite, and the step.
  """
  for name, value in to_floats(metrics).items():
    if not math.isfinite(value):
      raise NonFiniteError(name, step, value)


def _refuse_constant(name: str) -> float:
  raise ValueError(f"{name} is not JSON")


def _records(path: pathlib.Path, resumed_step: int | None) -> dict[str, dict[str, Any]]:
  """The whole lines of a metrics file up to a step, and their contents."""
  kept = {}
  for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
    try:
      record = json.loads(text, parse_constant=_refuse_constant)
      step = int(record["step"])
    except (ValueError, TypeError, KeyError):
      # A run that was killed may leave half a line.
      logging.warning("%s: line %d is not a metrics record and is dropped", path, number)
      continue
    if resumed_step is None or step <= resumed_step:
      kept[text] = record
  return kept


def read_metrics(workdir: str | os.PathLike[str]) -> list[Report]:
  """The lines of a run's `metrics.jsonl`, in the order of their steps; none before the first.

  Args:
    workdir: the run's folder.

  Returns:
    For each line {"step": ..., "wall_s": ..., metric: value or None, ...}.
  """
  path = pathlib.Path(workdir) / "metrics.jsonl"
  if not path.exists():
    return []
  return sorted(_records(path, None).values(), key=lambda record: record["step"])


class MetricWriter:
  """Appends metrics to `metrics.jsonl`, to TensorBoard events and to the log.

  A line of `metrics.jsonl` is {"step": ..., "wall_s": ..., metric: value, ...}, where wall_s counts
  the seconds of the run over all its resumptions and a non-finite value is null. Use it as a
  context manager, on host 0 only.

  Args:
    workdir: the run's folder; made if missing.
    tensorboard: True to write TensorBoard events too, if tensorboardX is installed.
    resumed_step: the step of the checkpoint that the run resumes from: lines of later steps, which
      will be written again, are dropped. None keeps every line.
  """

  def __init__(
    self, workdir: str | os.PathLike[str], *, tensorboard: bool, resumed_step: int | None = None
  ) -> None:
    folder = pathlib.Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "metrics.jsonl"
    earlier = 0.0
    if path.exists():
      records = _records(path, resumed_step)
      write_text(path, "".join(f"{record}\n" for record in records))
      earlier = max((record.get("wall_s") or 0.0 for record in records.values()), default=0.0)
    self._start = time.monotonic() - earlier
    # Line buffered: a kill loses at most the line being written.
    self._file = path.open("a", buffering=1, encoding="utf-8")
    self._events = None
    if tensorboard:
      if importlib.util.find_spec("tensorboardX") is None:
        logging.warning("tensorboardX is not installed: no TensorBoard events are written")
      else:
        import tensorboardX

        purge = None if resumed_step is None else resumed_step + 1
        self._events = tensorboardX.SummaryWriter(str(folder), purge_step=purge)

  def write(self, step: int, metrics: Mapping[str, ArrayLike], *, log: bool = True) -> None:
    """Writes scalars of one step.

    Args:
      step: the step that they belong to.
      metrics: scalars by name: Python, NumPy or JAX. "step" and "wall_s" are taken.
      log: False leaves them out of the absl log.

    Raises:
      ValueError: if a metric is not a scalar or takes a reserved name.
    """
    reserved = {"step", "wall_s"} & metrics.keys()
    if reserved:
      raise ValueError(f"metrics may not be named {sorted(reserved)}: the writer adds those.")
    values = to_floats(metrics)
    record: dict[str, Any] = {"step": int(step), "wall_s": round(time.monotonic() - self._start, 3)}
    # JSON has no NaN.
    record |= {name: value if math.isfinite(value) else None for name, value in values.items()}
    self._file.write(json.dumps(record, allow_nan=False) + "\n")
    if self._events is not None:
      for name, value in values.items():
        self._events.add_scalar(name, value, step)
    if log:
      text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
      logging.info("step %d  %s", step, text)

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    """Adds an image to the TensorBoard events, if there are any.

    Args:
      step: that it belongs to.
      name: under which it is shown.
      image: [H, W, 3] uint8.
    """
    if self._events is not None:
      self._events.add_image(name, image, step, dataformats="HWC")

  def close(self) -> None:
    """Finishes the files."""
    self._file.close()
    if self._events is not None:
      self._events.close()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()


class Progress:
  """A progress bar over steps that shows the loss and the images per second.

  Silent where standard error is not a terminal. Use it as a context manager.

  Args:
    total: the last step of the run.
    start: the step that the run resumes from.
    batch_size: images per step, over all devices and hosts.
  """

  def __init__(self, *, total: int, start: int, batch_size: int) -> None:
    self._batch_size = batch_size
    self._steps = 0  # since a loss was last shown
    self._shown = time.monotonic()
    self._bar = tqdm.tqdm(total=total, initial=start, unit="step", disable=None)

  def update(self, steps: int = 1, *, loss: float | None = None) -> None:
    """Advances the bar; shows a loss only where one is at hand, since fetching it would wait.

    Args:
      steps: how many steps were done since the last call.
      loss: the latest total loss.
    """
    self._steps += steps
    if loss is not None:
      # Only here have the steps really ended: the ones between run ahead of the host.
      now = time.monotonic()
      rate = self._steps * self._batch_size / max(now - self._shown, 1e-9)
      self._steps, self._shown = 0, now
      self._bar.set_postfix({"loss": f"{loss:.4g}", "images/s": f"{rate:.1f}"}, refresh=False)
    self._bar.update(steps)

  def close(self) -> None:
    """Leaves the bar as it stands."""
    self._bar.close()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()
