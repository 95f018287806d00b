"""The tables of ablations: presets and budgets, a file for each row, and the table of all rows."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np

from experiments.studies.ablation_rows import ROWS, config_of_row, title_of
from umr_jax.config.build import changes
from umr_jax.config.presets import config_of
from umr_jax.config.settings import Config, to_dict
from umr_jax.files import write_text
from umr_jax.types import Report

PRESETS = {"synthetic": "best", "planes": "planes"}
# What the presets were when the committed tables were begun: their seeds stay comparable.
_BEGUN = ("loss.flow_correction=0", "loss.mask=3", "loss.segmentation=0", "refine.steps=0")
# Beside that. The aeroplanes' tables are of parts made of keypoints, true ones not being there.
_ALWAYS = {"synthetic": (), "planes": ("data.parts=keypoints",)}
# A full budget is the preset's.
_SMALL = {
  "synthetic": (
    "train.steps=1000",
    "data.train_images=1000",
    "geometry.level=2",
    "loss.laplacian=0.07",
    *_BEGUN,
  ),
  "planes": ("train.steps=1000", *_BEGUN),
}
# There in a clone; an installed package has none.
_RESULTS = pathlib.Path(__file__).parent.parent / "results"
METRICS = (
  "mask_iou",
  "kt_camera_pck",
  "kt_flow_pck",
  "kt_mesh_pck",
  "kt_surface_pck",
  "apk",
  "iou_3d",
  "camera_error_deg",
  "camera_error_twin_deg",
  "part_iou",
)
_BRACKETS = (
  "Means over seeds, [from the lowest to the highest of them]. Of one seed: the value (its 95% "
  "interval over images), or alone where that was not kept."
)
_SHARED = (
  "Discovered parts and parts by position are found once, with one seed: all seeds of these "
  "rows share them, and a range over seeds does not cover another discovery."
)


class RowResults(TypedDict, total=False):
  """A row's file; without a run it has settings and no seeds."""

  settings: dict[str, Any]  # of seed 0, by group and name
  seeds: dict[str, Report]  # of `METRICS`, with their intervals, by seed
  row: str
  title: str
  dataset: str
  budget: str
  images: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
  """A table to be made."""

  dataset: str
  budget: str
  base: Config  # what rows differ from
  made_of: str  # the same in words: a preset, and what was set
  out: pathlib.Path  # a JSON file a row, table.md and table.csv
  workdir: pathlib.Path  # the runs, a folder each

  def path(self, name: str) -> pathlib.Path:
    """The file of a row."""
    return self.out / f"{name}.json"


def study_of(
  dataset: str, budget: str, *, changes: Sequence[str] = (), out: str = "", workdir: str = ""
) -> Study:
  """The table that the flags of these names ask for.

  Args:
    dataset: a key of `PRESETS`.
    budget: small or full.
    changes: settings of all rows, each GROUP.NAME=VALUE.
    out: where rows and tables go; empty: to the committed ones, where there are any.
    workdir: where the runs go; empty: to runs/.
  """
  name = f"ablate-{dataset}-{budget}"
  runs = pathlib.Path(workdir or f"runs/{name}")
  settings = [*_ALWAYS[dataset], *(_SMALL[dataset] if budget == "small" else ()), *changes]
  made_of = f"the preset `{PRESETS[dataset]}`" + (
    " with " + ", ".join(settings) if settings else ""
  )
  if budget == "small":
    made_of += "; the small budget keeps the settings with which its tables were begun"
  return Study(
    dataset=dataset,
    budget=budget,
    base=config_of(PRESETS[dataset], settings),
    made_of=made_of,
    out=pathlib.Path(out) if out else _RESULTS / name if _RESULTS.is_dir() else runs,
    workdir=runs,
  )


def read_results(study: Study, name: str) -> RowResults:
  """A row's file, or one without seeds where there is none.

  Args:
    study: the table.
    name: of the row.

  Raises:
    ValueError: if it was made with other settings than it would have now, seeds aside.
  """
  path, settings = study.path(name), to_dict(config_of_row(study.base, ROWS[name], seed=0))
  if not path.exists():
    return {"settings": settings, "seeds": {}}
  results = json.loads(path.read_text(encoding="utf-8"))
  if changed := sorted(changes(results["settings"], settings).keys() - {"train.seed"}):
    raise ValueError(
      f"{path} was made with other settings ({', '.join(changed)}); name another --out"
    )
  return results


def add_result(study: Study, name: str, *, seed: int, evaluation: Report) -> None:
  """Adds one run's metrics, with their intervals over images, to the row's file.

  Args:
    study: the table.
    name: of the row.
    seed: of the run.
    evaluation: of the run.
  """
  results = read_results(study, name)
  keys = (key for metric in METRICS for key in (metric, f"{metric}_ci"))
  results["seeds"][str(seed)] = {key: evaluation[key] for key in keys if key in evaluation}
  config = config_of_row(study.base, ROWS[name], seed=seed)
  labels: RowResults = {
    "row": name,
    "title": title_of(ROWS[name], config),
    "dataset": study.dataset,
    "budget": study.budget,
    "images": evaluation["n"],
  }
  write_text(study.path(name), json.dumps({**results, **labels}, indent=2) + "\n")


def read_all(study: Study) -> dict[str, RowResults]:
  """The results of all rows that have a file, by name.

  Raises:
    ValueError: as `read_results`.
  """
  return {name: read_results(study, name) for name in ROWS if study.path(name).exists()}


def write_table(study: Study) -> str:
  """Writes table.md and table.csv of the rows that have results; returns the markdown.

  Raises:
    ValueError: as `read_results`: all rows of a table have the same settings but their own.
  """
  found = read_all(study)
  seeds_of = {name: list(found[name]["seeds"].values()) if name in found else [] for name in ROWS}
  shown = [m for m in METRICS if any(m in seed for seeds in seeds_of.values() for seed in seeds)]
  markdown = ["| | seeds | " + " | ".join(shown) + " |", "|---|---|" + "---|" * len(shown)]
  lines = ["row,seeds," + ",".join(f"{m},{m}_low,{m}_high" for m in shown)]
  for name, row in ROWS.items():
    seeds = seeds_of[name]
    title = title_of(row, config_of_row(study.base, row, seed=0)) if seeds else row.title
    cells = [_cell(metric, seeds) for metric in shown]
    markdown.append(f"| {title} | {len(seeds) or 'not run'} | " + " | ".join(cells) + " |")
    numbers = [number for metric in shown for number in _numbers(metric, seeds)]
    lines.append(",".join([name, str(len(seeds)), *numbers]))
  text = "\n".join([*_head(study), "", _BRACKETS, "", *markdown, "", _SHARED]) + "\n"
  write_text(study.out / "table.md", text)
  write_text(study.out / "table.csv", "\n".join(lines) + "\n")
  return text


def _head(study: Study) -> list[str]:
  """What was run, in a few lines."""
  data, refined = study.base.data, study.base.refine.steps
  parts = f"data.parts={data.parts}"
  if data.parts == "keypoints":
    parts = "**keypoint-supervised parts: an upper reference, not the method**"
  elif data.parts == "given" and data.source == "synthetic":
    parts = "true part maps (synthetic)"
  return [
    f"Data set {study.dataset}, budget {study.budget}: {study.base.train.steps} steps a run. "
    f"Parts, where a row does not name others: {parts}.",
    "",
    f"Rows differ from {study.made_of}; meshes are "
    + (f"refined in {refined} steps." if refined else "not refined."),
  ]


def _cell(metric: str, seeds: list[Report]) -> str:
  """The mean over seeds, and from the lowest to the highest; of one seed, over images."""
  measured = [seed for seed in seeds if metric in seed]
  if not measured:
    return ""
  digits = 1 if metric.endswith("_deg") else 3
  values = np.array([seed[metric] for seed in measured])
  mean, low, high = (f"{v:.{digits}f}" for v in (values.mean(), values.min(), values.max()))
  if len(measured) > 1:
    return f"{mean} [{low}, {high}]"
  interval = measured[0].get(f"{metric}_ci")
  if interval is None:
    return mean
  return f"{mean} ({interval[0]:.{digits}f}-{interval[1]:.{digits}f} over images)"


def _numbers(metric: str, seeds: list[Report]) -> list[str]:
  """The mean over seeds, the lowest and the highest, for the CSV file."""
  values = np.array([seed[metric] for seed in seeds if metric in seed])
  if not len(values):
    return ["", "", ""]
  return [f"{v:.5f}" for v in (values.mean(), values.min(), values.max())]
