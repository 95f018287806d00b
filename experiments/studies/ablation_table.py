"""What an ablation found: a file for each row, and the table of all rows."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from experiments.studies.ablation_rows import ROWS, config_of_row, title_of
from umr_jax.config.build import changes
from umr_jax.config.settings import Config, to_dict
from umr_jax.files import write_text

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
  "interval over pictures), or alone where that was not kept."
)
_SHARED = (
  "Discovered parts and parts by position are found once, with `parts.seed`: all seeds of these "
  "rows share them, and a range over seeds says nothing of another discovery."
)


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


def read_results(study: Study, name: str) -> dict[str, Any]:
  """A row's file, or an empty one.

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


def add_result(study: Study, name: str, *, seed: int, evaluation: dict[str, Any]) -> None:
  """Writes what one run of a row found, with the intervals over pictures, into the row's file."""
  results = read_results(study, name)
  keys = (key for metric in METRICS for key in (metric, f"{metric}_ci"))
  results["seeds"][str(seed)] = {key: evaluation[key] for key in keys if key in evaluation}
  config = config_of_row(study.base, ROWS[name], seed=seed)
  results |= {"row": name, "title": title_of(ROWS[name], config), "dataset": study.dataset}
  results |= {"budget": study.budget, "images": evaluation["n"]}
  write_text(study.path(name), json.dumps(results, indent=2) + "\n")


def read_all(study: Study) -> dict[str, dict[str, Any]]:
  """The files of all rows that have one, by name.

  Raises:
    ValueError: as `read_results`.
  """
  return {name: read_results(study, name) for name in ROWS if study.path(name).exists()}


def write_table(study: Study) -> str:
  """Writes table.md and table.csv of the rows that have results; returns the markdown.

  Raises:
    ValueError: as `read_results`: a table's rows were all made alike.
  """
  found = read_all(study)
  shown = [m for m in METRICS if any(m in s for r in found.values() for s in r["seeds"].values())]
  markdown = ["| | seeds | " + " | ".join(shown) + " |", "|---|---|" + "---|" * len(shown)]
  lines = ["row,seeds," + ",".join(f"{m},{m}_low,{m}_high" for m in shown)]
  for name, row in ROWS.items():
    seeds = list(found[name]["seeds"].values()) if name in found else []
    cells, numbers = [], []
    for metric in shown:
      measured = [seed for seed in seeds if metric in seed]
      values = np.array([seed[metric] for seed in measured])
      interval = measured[0].get(f"{metric}_ci") if len(measured) == 1 else None
      cells.append(_cell(values, interval, digits=1 if metric.endswith("_deg") else 3))
      numbers += (
        [f"{v:.5f}" for v in (values.mean(), values.min(), values.max())]
        if len(values)
        else ["", "", ""]
      )
    title = title_of(row, config_of_row(study.base, row, seed=0)) if seeds else row.title
    count = str(len(seeds)) if seeds else "not run"
    markdown.append(f"| {title} | {count} | " + " | ".join(cells) + " |")
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
    f"Parts, where a row does not say others: {parts}.",
    "",
    f"Rows differ from {study.made_of}; meshes are "
    + (f"refined in {refined} steps." if refined else "not refined."),
  ]


def _cell(values: np.ndarray, interval: list[float] | None, *, digits: int) -> str:
  """The mean over seeds, and from the lowest to the highest; of one seed, over pictures."""
  if not len(values):
    return ""
  mean, low, high = (f"{v:.{digits}f}" for v in (values.mean(), values.min(), values.max()))
  if len(values) > 1:
    return f"{mean} [{low}, {high}]"
  if interval is None:
    return mean
  return f"{mean} ({interval[0]:.{digits}f}-{interval[1]:.{digits}f} over pictures)"
