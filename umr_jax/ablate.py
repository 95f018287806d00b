"""What each part of the method is worth: the same run without it, several seeds, one table.

Every row gets the same steps and the same data. A row's result is a file; rows that have one are
not run again, so that a table may be made over days, and rows be added to it.
"""

import dataclasses
import gc
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from umr_jax.config import Config, changes, from_dict, to_dict
from umr_jax.files import write_text
from umr_jax.pipeline import run

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
SEEDS = (0, 1, 2)


class Row(NamedTuple):
  """One line of the table: what it says, and the settings in which it differs from the preset."""

  title: str
  changes: Mapping[str, Any]


_NO_BANK = {"em.bank_every": 0, "loss.camera_bank": 0.0}
_NO_PARTS = {
  **_NO_BANK,
  "loss.part_vertices": 0.0,
  "loss.part_probability": 0.0,
  "geometry.first_parts": False,
}
# The first four are the supplementary's Table 1, the next ones its Table 2. What is taken away is
# taken from the preset, the row "semantics".
ROWS: dict[str, Row] = {
  "nothing": Row(
    "(a) no template, no semantics, no adversary",
    {**_NO_PARTS, "em.template": False, "geometry.first": "egg"},
  ),
  "template": Row("(b) with template", _NO_PARTS),
  "semantics": Row("(c) with template and semantics", {}),
  "adversary": Row("(c) and adversary", {"loss.adversary": 1.0}),
  "no_vertex_term": Row("(c) without L_sv", {"loss.part_vertices": 0.0}),
  "no_probability_term": Row("(c) without L_sp", {"loss.part_probability": 0.0}),
  "no_bank": Row("(c) without camera bank", _NO_BANK),
  "no_bank_no_vertex_term": Row(
    "(c) without camera bank and L_sv", {**_NO_BANK, "loss.part_vertices": 0.0}
  ),
  "free_pose": Row(
    "(c) without camera bank, elevation unbounded", {**_NO_BANK, "model.camera_pose": "free"}
  ),
  "twins": Row(
    "(c) without camera bank, elevation unbounded, twins as hypotheses",
    {**_NO_BANK, "model.camera_pose": "free", "model.camera_twins": True},
  ),
  "no_volume": Row(
    "(c) from the silhouettes' mean, without a volume",
    {"geometry.first": "silhouettes", "em.bank_every": 500},
  ),
  "free_flow": Row(
    "(c) with a free flow, symmetric",
    {
      "model.flow": "free",
      "geometry.symmetric_texture": True,
      "loss.flow_correction": 0.0,
    },
  ),
  # How the network learns: one switch at a time.
  "resnet": Row(
    "(c) with a ResNet from nothing", {"model.encoder": "resnet18", "loss.segmentation": 1.0}
  ),
  "no_freeze": Row(
    "(c) with free shapes from the first step",
    {"loss.deviation": 0.0, "loss.deviation_stop": 0, "loss.deformation_start": 0},
  ),
  "finer": Row(
    "(c) with a mesh and renders that become finer half-way",
    {
      "em.rounds": 2,
      "em.round_fractions": (0.5, 0.5),
      "em.levels": (2, 3),
      "em.render_sizes": (24, 48),
    },
  ),
  "average": Row("(c) with averaged weights", {"train.ema_decay": 0.99}),
  "no_clipping": Row("(c) without gradient clipping", {"train.clip_norm": 0.0}),
  "no_warmup": Row("(c) without warm-up", {"train.warmup_steps": 0}),
  "constant_rate": Row("(c) with a constant rate", {"train.schedule": "constant"}),
  "rare_m_steps": Row(
    "(c) with one M-step, at the end", {"em.template_every": 0, "em.parts_every": 0}
  ),
  "no_texture_cycle": Row("(c) without texture cycle", {"loss.texture_cycle": 0.0}),
  "one_camera": Row("(c) with one camera", {"em.hypotheses": (1,)}),
  # Where parts come from; the others have the preset's, true or made of keypoints.
  "discovered_parts": Row("(c) with discovered parts", {"data.parts": "discovered"}),
  "position_parts": Row(
    "(c) with parts by position", {"data.parts": "discovered", "parts.method": "position"}
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
  """A table to be made."""

  dataset: str
  budget: str
  base: Config  # what rows differ from
  out: pathlib.Path  # a JSON file a row, table.md and table.csv
  workdir: pathlib.Path  # the runs, a folder each


def config_of_row(base: Config, row: Row, *, seed: int) -> Config:
  """The configuration of a row.

  Raises:
    ValueError: if the row changes a setting that does not exist, or the result cannot run.
  """
  nested = to_dict(base)
  for name, value in {**row.changes, "train.seed": seed}.items():
    group, setting = name.split(".")
    if setting not in nested[group]:
      raise ValueError(f"the row {row.title!r} changes {name}, which is no setting")
    nested[group][setting] = value
  return from_dict(nested)


def ablate(study: Study, *, rows: Sequence[str] = tuple(ROWS), seeds: Sequence[int] = SEEDS) -> str:
  """Runs what is missing, and writes the table.

  Args:
    study: what of, and where.
    rows: keys of `ROWS`, in the order in which they are run.
    seeds: of every row.

  Returns:
    The table as markdown.

  Raises:
    ValueError: if a finished row was made with other settings than it would have now.
  """
  for seed in seeds:
    for name in rows:
      config = config_of_row(study.base, ROWS[name], seed=seed)
      path = _path(study, name)
      results = _read(path, config)
      if str(seed) in results["seeds"]:
        continue
      logging.info("Row %s, seed %d.", name, seed)
      folder = study.workdir / name / str(seed)
      _refuse_other_length(folder, config)
      evaluation = run(config, folder).evaluation
      # Dozens of compiled programs would fill the memory, and Linux's table of memory maps.
      jax.clear_caches()
      gc.collect()
      results["seeds"][str(seed)] = {m: evaluation[m] for m in METRICS if m in evaluation}
      results |= {"row": name, "title": ROWS[name].title, "dataset": study.dataset}
      results |= {"budget": study.budget, "images": evaluation["n"]}
      write_text(path, json.dumps(results, indent=2) + "\n")
      write_table(study)
  return write_table(study)


def _refuse_other_length(folder: pathlib.Path, config: Config) -> None:
  """A run of fewer steps would go on with a schedule that has ended."""
  path = folder / "config.json"
  if path.is_file():
    steps = json.loads(path.read_text(encoding="utf-8"))["train"]["steps"]
    if steps != config.train.steps:
      raise ValueError(
        f"{folder} holds a run of {steps} steps, not {config.train.steps}; name another --workdir"
      )


def write_table(study: Study) -> str:
  """Writes table.md and table.csv of the rows that have results; returns the markdown."""
  found = {name: _read(_path(study, name), None) for name in ROWS if _path(study, name).exists()}
  shown = [m for m in METRICS if any(m in s for r in found.values() for s in r["seeds"].values())]
  markdown = ["| | seeds | " + " | ".join(shown) + " |", "|---|---|" + "---|" * len(shown)]
  lines = ["row,seeds," + ",".join(f"{m},{m}_low,{m}_high" for m in shown)]
  for name, row in ROWS.items():
    seeds = list(found[name]["seeds"].values()) if name in found else []
    cells, numbers = [], []
    for metric in shown:
      values = np.array([seed[metric] for seed in seeds if metric in seed])
      digits = 1 if metric.endswith("_deg") else 3
      cells.append(_cell(values, digits))
      numbers += (
        [f"{v:.5f}" for v in (values.mean(), values.min(), values.max())]
        if len(values)
        else ["", "", ""]
      )
    count = str(len(seeds)) if seeds else "not run"
    markdown.append(f"| {row.title} | {count} | " + " | ".join(cells) + " |")
    lines.append(",".join([name, str(len(seeds)), *numbers]))
  text = "\n".join(markdown) + "\n"
  write_text(study.out / "table.md", text)
  write_text(study.out / "table.csv", "\n".join(lines) + "\n")
  return text


def _cell(values: np.ndarray, digits: int) -> str:
  """The mean over seeds, and from the lowest to the highest."""
  if not len(values):
    return ""
  mean, low, high = (f"{v:.{digits}f}" for v in (values.mean(), values.min(), values.max()))
  return mean if len(values) == 1 else f"{mean} [{low}, {high}]"


def _path(study: Study, name: str) -> pathlib.Path:
  return study.out / f"{name}.json"


def _read(path: pathlib.Path, config: Config | None) -> dict[str, Any]:
  """A row's file, or an empty one; with a config, only if it was made with that, seeds aside."""
  settings = None if config is None else to_dict(config)
  if not path.exists():
    return {"settings": settings, "seeds": {}}
  results = json.loads(path.read_text(encoding="utf-8"))
  if settings is not None:
    changed = sorted(changes(results["settings"], settings).keys() - {"train.seed"})
    if changed:
      raise ValueError(
        f"{path} was made with other settings ({', '.join(changed)}); name another --workdir"
      )
  return results
