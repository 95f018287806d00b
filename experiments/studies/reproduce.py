"""A run beside what was published: one table, in three formats, and the precision-recall curve.

Published values are fractions. Those of other methods are cited, never measured here.

Source: Li et al. 2020, section 4 and the supplementary's Table 2; Kanazawa et al. 2018 (CMR);
Kulkarni et al. 2019 (CSM).
"""

import csv
import io
import json
import pathlib
import time
from typing import Any, NamedTuple

import numpy as np

from experiments.studies.figures.plots import curves_of, pixels_of, precision_recall_figure
from umr_jax.config.presets import CATEGORIES
from umr_jax.config.settings import Config
from umr_jax.data.dataset import Dataset, evaluation_split, load_dataset
from umr_jax.em.run import run
from umr_jax.eval.workdir import evaluate_workdir
from umr_jax.files import write_text
from umr_jax.predict.predictor import load_predictor
from umr_jax.types import Report
from umr_jax.viz.images import save_png

# Seconds for one image, on a V100.
SECONDS_PER_IMAGE = 0.022
# What can be reproduced, and the preset that does it.
DATASETS = {
  **{name: f"paper:{name}" for name in CATEGORIES},
  "planes": "planes",
  "synthetic": "quickstart",
}
METRICS = ("mask_iou", "kt_camera_pck", "kt_flow_pck", "apk", "iou_3d")


class Row(NamedTuple):
  """One line of a published table."""

  name: str
  values: dict[str, float]
  note: str = ""


# A run is compared with the first row of its data set.
TABLES: dict[str, tuple[Row, ...]] = {
  "cub": (
    Row(
      "UMR (paper)",
      {"mask_iou": 0.734, "kt_camera_pck": 0.512, "kt_flow_pck": 0.582, "apk": 0.25},
    ),
    Row(
      "UMR (paper), (e) original part segmentation",
      {"kt_camera_pck": 0.487, "kt_flow_pck": 0.529},
      "derived from the gains that the supplementary states",
    ),
    Row(
      "UMR (paper), without L_sv",
      {"mask_iou": 0.6069, "kt_camera_pck": 0.307, "kt_flow_pck": 0.295},
    ),
    Row(
      "UMR (paper), without L_sp",
      {"mask_iou": 0.6418, "kt_camera_pck": 0.51, "kt_flow_pck": 0.533},
    ),
    Row(
      "CMR (cited)",
      {"mask_iou": 0.706, "kt_camera_pck": 0.473, "kt_flow_pck": 0.285},
      "uses keypoints; recalled, verify before quoting",
    ),
    Row(
      "CSM (cited)",
      {"kt_camera_pck": 0.48, "apk": 0.224},
      "uses a given template; its radius is a tenth larger; recalled, verify before quoting",
    ),
  ),
}

# Rows of the supplementary's tables that need a run of their own: the row of `ablation_rows.ROWS`
# that is this run; for the last, the name in `em.improve_parts.improve`'s result.
ABLATED = {
  "(a) no template, no semantics, no adversary": "nothing",
  "(b) with template": "template",
  "(c) with semantics": "semantics",
  "without L_sv": "no_vertex_term",
  "without L_sp": "no_probability_term",
  "(e) original part segmentation": "before",
}

_TIMED = 20  # images, one at a time

# A line of the table: `name`, `note`, and the metrics that it has.
Line = dict[str, str | float]


# What results.json holds: `dataset`, `rows`, which are lines, `seconds_per_image` on this machine
# and its `published_`, and the whole `evaluation`.
Results = dict[str, Any]


def reproduce(
  dataset: str,
  config: Config | None,
  workdir: pathlib.Path,
  *,
  ablation: pathlib.Path | None = None,
) -> Results:
  """Trains or takes a run, evaluates it, and writes it beside what was published.

  Args:
    dataset: a key of `DATASETS`; `TABLES` has no rows for those without published numbers.
    config: to train with; None takes the run in `workdir` as it is.
    workdir: the run; results.json, table.md, table.csv and precision_recall.png are written there.
    ablation: where `ablate.ablate` wrote its rows, for the lines of `ABLATED`.

  Returns:
    What results.json holds; see `Results`.

  Raises:
    ValueError, OSError: as `em.run.run`.
  """
  ablated = ablated_rows(ablation, dataset=dataset) | improved_rows(workdir)
  if config is not None:
    evaluation = run(config, workdir).evaluation
    data = load_dataset(config.data)
  else:
    predictor = load_predictor(workdir)
    data = load_dataset(predictor.config.data)
    evaluation = evaluate_workdir(workdir, split=evaluation_split(data), dataset=data).report
  results: Results = {
    "dataset": dataset,
    "rows": table_rows(dataset, evaluation, ablated=ablated),
    "seconds_per_image": seconds_per_image(workdir, data),
    "published_seconds_per_image": SECONDS_PER_IMAGE,
    "evaluation": evaluation,
  }
  write_text(workdir / "results.json", json.dumps(results, indent=2) + "\n")
  write_text(workdir / "table.md", markdown(results))
  write_text(workdir / "table.csv", comma_separated(results))
  if curves := curves_of(evaluation):
    save_png(workdir / "precision_recall.png", pixels_of(precision_recall_figure(curves)))
  return results


def ablated_rows(folder: pathlib.Path | None, *, dataset: str) -> dict[str, Line]:
  """The rows of an ablation that have results: means over seeds, with a note.

  Args:
    folder: of the rows' JSON files; None gives no rows.
    dataset: that the ablation must be of.

  Returns:
    By the row's name.

  Raises:
    ValueError: if the folder has none of them, or they are another data set's.
  """
  rows: dict[str, Line] = {}
  if folder is None:
    return rows
  for name in ABLATED.values():
    path = folder / f"{name}.json"
    if path.is_file():
      results = json.loads(path.read_text(encoding="utf-8"))
      if results["dataset"] != dataset:
        raise ValueError(f"{path} is an ablation on {results['dataset']}, not on {dataset}")
      seeds = list(results["seeds"].values())
      means = {m: float(np.mean([s[m] for s in seeds])) for m in METRICS if m in seeds[0]}
      rows[name] = means | {"note": f"ablation, {results['budget']} budget, {len(seeds)} seeds"}
  if not rows:
    raise ValueError(f"{folder} holds no rows of an ablation, such as template.json")
  return rows


def improved_rows(workdir: pathlib.Path) -> dict[str, Line]:
  """The results of `experiments.improve_scops` in a run's folder, by "before", "turn 1", ..."""
  path = workdir / "improved" / "improvement.json"
  if not path.is_file():
    return {}
  return {
    name: {m: report[m] for m in METRICS if m in report} | {"note": f"step {report['step']}"}
    for name, report in json.loads(path.read_text(encoding="utf-8")).items()
  }


def table_rows(
  dataset: str, evaluation: Report, *, ablated: dict[str, Line] | None = None
) -> list[Line]:
  """The lines of the table: this run, its gap to the paper, what was published, and ablations.

  Args:
    dataset: a key of `DATASETS`.
    evaluation: of this run.
    ablated: the lines of `ablated_rows` and `improved_rows`, by name; those missing are "not run".
  """
  published = TABLES.get(dataset, ())
  ours = {metric: evaluation[metric] for metric in METRICS if metric in evaluation}
  rows: list[Line] = [
    {"name": "this run", **ours, "note": f"step {evaluation['step']}, {evaluation['n']} images"}
  ]
  if published:
    first = published[0]
    gap = {m: ours[m] - value for m, value in first.values.items() if m in ours}
    rows.append({"name": "gap to the first published row", **gap, "note": ""})
  rows += [{"name": row.name, **row.values, "note": row.note} for row in published]
  rows += [
    {"name": f"ours, {name}", **(ablated or {}).get(key, {"note": "not run"})}
    for name, key in ABLATED.items()
  ]
  rows += [
    {"name": f"ours, improved parts, {key}", **row}
    for key, row in (ablated or {}).items()
    if key.startswith("turn ")
  ]
  return rows


def seconds_per_image(workdir: pathlib.Path, dataset: Dataset) -> float:
  """The median time from one image to its reconstruction, on this machine.

  Args:
    workdir: the run.
    dataset: its data.
  """
  predictor = load_predictor(workdir, batch_size=1)
  split = dataset.splits[evaluation_split(dataset)]
  spent = []
  for i in range(min(_TIMED, len(split)) + 1):
    example = split[i % len(split)]
    began = time.perf_counter()
    predictor(example.image, box=example.box)
    spent.append(time.perf_counter() - began)
  return float(np.median(spent[1:]))  # the first one compiles


def _cell(value: str | float | None) -> str:
  return f"{value:.3f}" if isinstance(value, float) else ""


def markdown(results: Results) -> str:
  """The table as markdown."""
  lines = [
    "| | " + " | ".join(METRICS) + " | |",
    "|---|" + "---|" * (len(METRICS) + 1),
  ]
  for row in results["rows"]:
    cells = [_cell(row.get(metric)) for metric in METRICS]
    lines.append(f"| {row['name']} | " + " | ".join(cells) + f" | {row['note']} |")
  lines.append(
    f"\nSeconds for an image: {results['seconds_per_image']:.3f} on this machine, "
    f"{SECONDS_PER_IMAGE} on a V100 in the paper."
  )
  return "\n".join(lines) + "\n"


def comma_separated(results: Results) -> str:
  """The table as CSV."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(["name", *METRICS, "note"])
  for row in results["rows"]:
    writer.writerow([row["name"], *(row.get(metric, "") for metric in METRICS), row["note"]])
  return text.getvalue()
