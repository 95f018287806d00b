"""A run beside what was published: one table, in three formats, and the precision-recall curve."""

import csv
import io
import json
import pathlib
import time
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from experiments.studies.published import ABLATED, METRICS, SECONDS_PER_IMAGE, TABLES
from umr_jax.config.settings import Config
from umr_jax.data.dataset import Dataset, evaluation_split, load_dataset
from umr_jax.em.run import evaluate_workdir, run
from umr_jax.files import write_bytes, write_text
from umr_jax.predict.predictor import load_predictor

_TIMED = 20  # images, one at a time


def reproduce(
  dataset: str,
  config: Config | None,
  workdir: pathlib.Path,
  out: pathlib.Path,
  *,
  ablation: pathlib.Path | None = None,
) -> dict[str, Any]:
  """Trains or takes a run, evaluates it, and writes it beside what was published.

  Args:
    dataset: a key of `published.TABLES`, or a data set that nobody published numbers of.
    config: to train with; None takes the run in `workdir` as it is.
    workdir: the run.
    out: where results.json, table.md, table.csv and precision_recall.png are written.
    ablation: where `ablate.ablate` wrote its rows, for the lines of the table that it stands for.

  Returns:
    What results.json holds: `dataset`, `rows`, `seconds_per_image` and its `published_`, and the
    whole `evaluation`.

  Raises:
    ValueError, OSError: as `pipeline.run`.
  """
  ablated = ablated_rows(ablation, dataset=dataset) | improved_rows(workdir)
  if config is not None:
    evaluation = run(config, workdir).evaluation
    data = load_dataset(config.data)
  else:
    predictor = load_predictor(workdir)
    data = load_dataset(predictor.config.data)
    evaluation = evaluate_workdir(workdir, split=evaluation_split(data), dataset=data)
  results = {
    "dataset": dataset,
    "rows": table_rows(dataset, evaluation, ablated=ablated),
    "seconds_per_image": seconds_per_image(workdir, data),
    "published_seconds_per_image": SECONDS_PER_IMAGE,
    "evaluation": evaluation,
  }
  write_text(out / "results.json", json.dumps(results, indent=2) + "\n")
  write_text(out / "table.md", markdown(results))
  write_text(out / "table.csv", comma_separated(results))
  if curves := curves_of(evaluation):
    write_bytes(out / "precision_recall.png", draw_curves(curves))
  return results


def ablated_rows(folder: pathlib.Path | None, *, dataset: str) -> dict[str, dict[str, Any]]:
  """By name, the rows of an ablation that have results: means over seeds, with a note.

  Raises:
    ValueError: if the folder has none of them, or they are another data set's.
  """
  rows: dict[str, dict[str, Any]] = {}
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


def improved_rows(workdir: pathlib.Path) -> dict[str, dict[str, Any]]:
  """What `experiments.improve_scops` left in a run's folder, by "before", "turn 1", and so on."""
  path = workdir / "improved" / "improvement.json"
  if not path.is_file():
    return {}
  return {
    name: {m: report[m] for m in METRICS if m in report} | {"note": f"step {report['step']}"}
    for name, report in json.loads(path.read_text(encoding="utf-8")).items()
  }


def table_rows(
  dataset: str, evaluation: dict[str, Any], *, ablated: dict[str, dict[str, Any]] | None = None
) -> list[dict[str, Any]]:
  """The lines of the table: this run, how far it is from the paper, what was published, not run."""
  published = TABLES.get(dataset, ())
  ours = {metric: evaluation[metric] for metric in METRICS if metric in evaluation}
  rows: list[dict[str, Any]] = [
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
  """The median time from one photograph to its reconstruction, on this machine."""
  predictor = load_predictor(workdir, batch_size=1)
  split = dataset.splits[evaluation_split(dataset)]
  spent = []
  for i in range(min(_TIMED, len(split)) + 1):
    example = split[i % len(split)]
    began = time.perf_counter()
    predictor(example.image, box=example.box)
    spent.append(time.perf_counter() - began)
  return float(np.median(spent[1:]))  # the first one compiles


def _cell(value: Any) -> str:
  return f"{value:.3f}" if isinstance(value, float) else ""


def markdown(results: dict[str, Any]) -> str:
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


def comma_separated(results: dict[str, Any]) -> str:
  """The table as CSV."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(["name", *METRICS, "note"])
  for row in results["rows"]:
    writer.writerow([row["name"], *(row.get(metric, "") for metric in METRICS), row["note"]])
  return text.getvalue()


def curves_of(evaluation: dict[str, Any]) -> dict[str, dict[str, list[float]]]:
  """The precision-recall curves that an evaluation holds, by name."""
  keys = (("by flow", "apk_curve"), ("by camera", "apk_camera_curve"))
  return {name: evaluation[key] for name, key in keys if key in evaluation}


def draw_curves(curves: dict[str, dict[str, list[float]]]) -> bytes:
  """Precision over recall, both from 0 to 1, as PNG; after the supplementary's figure 9."""
  size, margin, colors = 480, 60, ((200, 60, 20), (20, 90, 200), (20, 140, 60))
  image = Image.new("RGB", (size + 2 * margin, size + 2 * margin), "white")
  draw, font = ImageDraw.Draw(image), ImageFont.load_default(14)
  for i in range(6):
    at = i * size / 5
    draw.line([(margin + at, margin), (margin + at, margin + size)], (225, 225, 225))
    draw.line([(margin, margin + at), (margin + size, margin + at)], (225, 225, 225))
    draw.text((margin + at, margin + size + 8), f"{i / 5:.1f}", "black", font, anchor="mt")
    draw.text((margin - 8, margin + at), f"{1 - i / 5:.1f}", "black", font, anchor="rm")
  draw.text((margin + size / 2, margin + size + 30), "recall", "black", font, anchor="mt")
  draw.text((margin, margin - 24), "precision", "black", font, anchor="lb")
  for (name, curve), color in zip(curves.items(), colors, strict=False):
    points = [
      (margin + recall * size, margin + (1 - precision) * size)
      for precision, recall in zip(curve["precision"], curve["recall"], strict=True)
    ]
    draw.line(points, color, width=3)
    place = (margin + size - 6, margin + 8 + 20 * list(curves).index(name))
    draw.text(place, name, color, font, anchor="rt")
  buffer = io.BytesIO()
  image.save(buffer, "PNG")
  return buffer.getvalue()
