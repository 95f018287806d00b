"""report.html, the page that a run ends with: metrics, meshes to turn, templates and panels."""

import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from umr_jax.config.settings import Config, flatten, to_dict
from umr_jax.data.dataset import Dataset, evaluation_split
from umr_jax.eval.evaluate import Evaluation
from umr_jax.eval.predictions import Predictions
from umr_jax.eval.summary import format_table
from umr_jax.eval.view_coverage import wide_posteriors
from umr_jax.files import write_text
from umr_jax.predict.predictor import load_predictor
from umr_jax.types import Report
from umr_jax.viz.pages import render_page


class Round(NamedTuple):
  """The entry of one EM round in the report."""

  number: int
  files: list[str]  # in rounds/NUMBER
  objective: str  # its value and weighted terms, or nothing


def write_report(
  workdir: pathlib.Path,
  config: Config,
  dataset: Dataset,
  evaluation: Evaluation,
  *,
  template_sizes: Sequence[Report],
) -> pathlib.Path:
  """Writes report.html, and meshes/NAME.glb with a viewer for the first images of the split.

  Args:
    workdir: of the run, which has a checkpoint.
    config: of the run.
    dataset: its data.
    evaluation: of its evaluation split; what was predicted for it is shown.
    template_sizes: the metrics of the initial template and of each M-step.

  Returns:
    The report's path.
  """
  config_lines = (f"{name} = {value!r}" for name, value in flatten(to_dict(config)).items())
  page = render_page(
    "report.html",
    title=f"{dataset.name}: step {evaluation.report['step']}",
    images="unseen images" if evaluation_split(dataset) == "test" else "training images",
    table=format_table(evaluation.report),
    meshes=_write_meshes(workdir, dataset, evaluation.predictions),
    cameras=_read(workdir / "cameras.json"),
    wide=_wide(dataset, evaluation.predictions),
    rounds=_rounds(workdir / "rounds"),
    sizes=template_sizes,
    skipped=dataset.skipped,
    panels=_panels(workdir / "panels"),
    config="\n".join(config_lines),
  )
  path = workdir / "report.html"
  write_text(path, page)
  return path


def _write_meshes(workdir: pathlib.Path, dataset: Dataset, predictions: Predictions) -> list[str]:
  """Exports the meshes of the first images of the split; returns their file stems."""
  split = dataset.splits[evaluation_split(dataset)]
  shown = [row for row in predictions.shown if row is not None]
  examples = [split[i] for i in range(len(shown))]
  images = np.stack([image for image, _ in shown])
  found = jax.tree.map(lambda *rows: np.stack(rows), *[inference for _, inference in shown])
  stems = []
  reconstructions = load_predictor(workdir).finish(examples, images, found)
  for example, reconstruction in zip(examples, reconstructions, strict=True):
    stem = re.sub(r"[^\w.-]", "_", example.name)
    for suffix in (".glb", ".html"):
      reconstruction.export(workdir / "meshes" / f"{stem}{suffix}")
    stems.append(stem)
  return stems


def _wide(dataset: Dataset, predictions: Predictions) -> list[str]:
  """The names of the images whose view stays open."""
  split = dataset.splits[evaluation_split(dataset)]
  return [split[row].name for row in wide_posteriors(predictions)]


def _rounds(folder: pathlib.Path) -> list[Round]:
  """The rounds of a run, in order."""
  rounds = sorted((f for f in folder.iterdir() if f.name.isdigit()), key=lambda f: int(f.name))
  return [
    Round(int(f.name), sorted(file.name for file in f.iterdir()), _objective(f / "objective.json"))
    for f in rounds
  ]


def _read(path: pathlib.Path) -> dict[str, Any] | None:
  """The contents of a file that the run may have written, or None."""
  return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _objective(path: pathlib.Path) -> str:
  """A round's objective and its weighted terms from large to small; "" without a file."""
  means = _read(path)
  if means is None:
    return ""
  terms = sorted(
    ((value, name) for name, value in means.items() if name.startswith("weighted/") and value),
    reverse=True,
  )
  listed = ", ".join(f"{name.removeprefix('weighted/')} {value:.3g}" for value, name in terms)
  return f"{means['loss/total']:.4g} ({listed})"


def _panels(folder: pathlib.Path) -> list[str]:
  """The stems of the first, a middle and the last panel; the rest stay in their folder."""
  stems = sorted(path.stem for path in folder.glob("*.png"))
  return [stems[i] for i in sorted({0, len(stems) // 2, len(stems) - 1})] if stems else []
