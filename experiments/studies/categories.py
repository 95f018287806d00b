"""One preset with the same settings on every category, several seeds each: what it gives unseen.

Images and silhouettes alone are learned from: no part map, camera, keypoint or shape of a data set
is read in training, where it has any.
"""

import csv
import gc
import io
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from umr_jax.config.presets import config_of
from umr_jax.em.run import prepare_workdir, run
from umr_jax.eval.workdir import evaluate_workdir, final_evaluation
from umr_jax.files import write_text
from umr_jax.models.checkpoint import saved_steps
from umr_jax.types import Report

PRESET = "default"
# Degrees in azimuth from the side view, within which a view counts as one from the side.
_SIDE_DEG = 10.0


class Category(NamedTuple):
  """A data set, and what is known of it."""

  settings: tuple[str, ...]
  from_side: bool = False  # every image shows its object from the side


CATEGORIES = {
  "synthetic": Category(
    ("data.source=synthetic", "data.parts=discovered", "data.train_images=500")
  ),
  "planes": Category(("data.folder=$UMR_JAX_DATA/planes", "data.parts=discovered")),
  "cars3d": Category(("data.folder=$UMR_JAX_DATA/cars3d", "data.parts=discovered")),
  "cub_birds": Category(("data.folder=$UMR_JAX_DATA/cub_birds", "data.parts=discovered")),
  "weizmann_horses": Category(
    ("data.folder=$UMR_JAX_DATA/weizmann_horses", "data.parts=discovered"), from_side=True
  ),
}
COLUMNS = {
  "mask_iou": "mask IoU",
  "mask_iou_hard": "hard",
  "camera_error_deg": "camera",
  "camera_error_twin_deg": "modulo twin",
  "camera_within_30": "within 30",
  "view_coverage": "in the 90% region",
  "view_region": "region",
  "within_10_of_side": "within 10 of the side",
  "iou_3d": "3D IoU",
  "f_score": "F",
  "kt_camera_pck": "KT camera",
  "kt_flow_pck": "KT projected flow",
  "kt_surface_pck": "KT surface",
  "apk": "APK",
  "thin_recall": "thin recall",
  "thin_precision": "thin precision",
}

# Of every category, of every seed, by the seed's number, the metrics of `COLUMNS` that it has.
Results = dict[str, dict[str, dict[str, float]]]


def categories(
  names: Sequence[str], changes: Sequence[str], workdir: pathlib.Path, *, seeds: int
) -> Results:
  """Trains, or takes what is trained, and writes the table after every run.

  Args:
    names: keys of `CATEGORIES`.
    changes: of settings, the same for all; see `config.presets.config_of`.
    workdir: runs are in NAME-SEED; results.json, table.md and table.csv are written beside them.
    seeds: how many: 0, 1, ...

  Returns:
    What results.json holds.

  Raises:
    ValueError, OSError: as `em.run.run`; among them, for a run in the folder with other settings.
  """
  results: Results = {}
  for name, seed in _runs(names, seeds):
    results.setdefault(name, {})[str(seed)] = _measured(
      CATEGORIES[name], [*changes, f"train.seed={seed}"], workdir / f"{name}-{seed}"
    )
    write_text(workdir / "results.json", json.dumps(results, indent=2) + "\n")
    write_text(workdir / "table.md", markdown(results))
    write_text(workdir / "table.csv", comma_separated(results))
  return results


def _runs(names: Sequence[str], seeds: int) -> Iterator[tuple[str, int]]:
  """Every category once before any has a second seed."""
  for seed in range(seeds):
    for name in names:
      yield name, seed


def _measured(
  category: Category, changes: Sequence[str], workdir: pathlib.Path
) -> dict[str, float]:
  """The metrics of one run on unseen images."""
  config = config_of(PRESET, [*category.settings, *changes])
  prepare_workdir(workdir, config)  # refuses a run with other settings
  finished = config.train.steps in saved_steps(workdir / "checkpoints")
  report: Report = final_evaluation(workdir) if finished else run(config, workdir).evaluation
  found = {name: float(report[name]) for name in COLUMNS if report.get(name) is not None}
  if category.from_side:
    predictions = evaluate_workdir(workdir, split=report["split"]).predictions
    off = degrees_off_side(predictions.rotations)
    found["within_10_of_side"] = float(np.mean(off < _SIDE_DEG))
  jax.clear_caches()  # dozens of compiled programs would fill the memory
  gc.collect()
  return found


def degrees_off_side(rotations: np.ndarray) -> np.ndarray:
  """How far the azimuths of views are from the nearer side view.

  Args:
    rotations: [N, 3, 3], from object space (x forward, z up) to the camera's.

  Returns:
    [N] degrees in [0, 90]: 90 for views from in front and from behind.
  """
  along = rotations[:, 2]  # the direction of view, in object space
  return np.degrees(np.arctan2(np.abs(along[:, 0]), np.abs(along[:, 1])))


def _lines(results: Results) -> Iterator[tuple[str, int, dict[str, list[float]]]]:
  """Of every category its name, its runs, and (median, lowest, highest) of every metric."""
  for name, runs in results.items():
    values = {m: [run[m] for run in runs.values() if m in run] for m in COLUMNS}
    spread = {m: [float(np.median(v)), min(v), max(v)] for m, v in values.items() if v}
    yield name, len(runs), spread


def markdown(results: Results) -> str:
  """The table: medians over seeds, and in brackets the lowest and the highest."""

  def cell(spread: list[float] | None) -> str:
    if spread is None:
      return ""
    digits = 1 if spread[0] > 1.0 else 3
    median, low, high = (f"{value:.{digits}f}" for value in spread)
    return median if low == high else f"{median} [{low}, {high}]"

  lines = [
    "| set (seeds) | " + " | ".join(COLUMNS.values()) + " |",
    "|---|" + "---|" * len(COLUMNS),
  ]
  for name, count, spread in _lines(results):
    cells = [cell(spread.get(metric)) for metric in COLUMNS]
    lines.append(f"| {name} ({count}) | " + " | ".join(cells) + " |")
  return "\n".join(lines) + "\n"


def comma_separated(results: Results) -> str:
  """Every run's metrics as CSV, a line each."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(["set", "seed", *COLUMNS])
  for name, runs in results.items():
    for seed, found in runs.items():
      writer.writerow([name, seed, *(found.get(metric, "") for metric in COLUMNS)])
  return text.getvalue()


def told(results: Results) -> dict[str, Any]:
  """What the command prints: medians by category."""
  return {
    name: {metric: values[0] for metric, values in spread.items()}
    for name, _, spread in _lines(results)
  }
