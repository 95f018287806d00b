"""The page that a run ends with: numbers, panels, templates, and meshes that can be turned."""

import html
import json
import pathlib
import re
from typing import Any

from umr_jax.config.settings import Config, flatten, to_dict
from umr_jax.data.dataset import Dataset, evaluation_split
from umr_jax.eval.summary import format_table
from umr_jax.files import write_text
from umr_jax.predict.predictor import load_predictor

# Meshes of unseen images that a report shows.
SHOWN = 6

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em }}
img {{ max-width: 100%; image-rendering: auto }}
pre {{ background: #f4f4f4; padding: 1em; overflow-x: auto }}
.meshes {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 1em }}
iframe {{ width: 100%; height: 300px; border: 1px solid #ccc }}
</style></head><body>
<h1>{title}</h1>
<h2>Evaluation on {images}</h2><pre>{table}</pre>
<h2>Reconstructions of {images}</h2><p>Drag to turn.</p><div class="meshes">{meshes}</div>
<h2>Template of each round</h2><ul>{rounds}</ul>
<h2>What was skipped</h2><ul>{skipped}</ul>
<h2>While it learned</h2>{panels}
<details><summary>Configuration</summary><pre>{config}</pre></details>
</body></html>
"""


def write_report(
  workdir: pathlib.Path, config: Config, dataset: Dataset, evaluation: dict[str, Any]
) -> pathlib.Path:
  """Writes report.html, and meshes/NAME.glb with a viewer for the first unseen images.

  Returns:
    The report's path.
  """
  panels = sorted((workdir / "panels").glob("*.png"))
  # The first, a middle and the last panel tell the story; the rest stay in their folder.
  told = [panels[i] for i in sorted({0, len(panels) // 2, len(panels) - 1})] if panels else []
  rounds = [folder for folder in (workdir / "rounds").iterdir() if folder.name.isdigit()]
  rounds.sort(key=lambda folder: int(folder.name))
  page = _PAGE.format(
    title=html.escape(f"{dataset.name}: step {evaluation['step']}"),
    images="unseen images" if evaluation_split(dataset) == "test" else "training images",
    table=html.escape(format_table(evaluation)),
    meshes="".join(_mesh_cell(name) for name in _write_meshes(workdir, dataset)),
    rounds="".join(_round_line(folder) for folder in rounds),
    skipped="".join(
      f"<li>{html.escape(name)}: {html.escape(reason)}</li>" for name, reason in dataset.skipped
    )
    or "<li>nothing</li>",
    panels="".join(f'<h3>{p.stem}</h3><img src="panels/{p.name}" alt="panel">' for p in told),
    config=html.escape(
      "\n".join(f"{name} = {value!r}" for name, value in flatten(to_dict(config)).items())
    ),
  )
  path = workdir / "report.html"
  write_text(path, page)
  return path


def _write_meshes(workdir: pathlib.Path, dataset: Dataset) -> list[str]:
  """Exports the meshes of the first images to show; returns their file stems."""
  split = dataset.splits[evaluation_split(dataset)]
  examples = [split[i] for i in range(min(SHOWN, len(split)))]
  predictor = load_predictor(workdir)
  # By their boxes alone: a known mask would be what the meshes are fitted to.
  reconstructions = predictor.batch(
    [example.image for example in examples], boxes=[example.box for example in examples]
  )
  stems = []
  for example, reconstruction in zip(examples, reconstructions, strict=True):
    stem = re.sub(r"[^\w.-]", "_", example.name)
    for suffix in (".glb", ".html"):
      reconstruction.export(workdir / "meshes" / f"{stem}{suffix}")
    stems.append(stem)
  return stems


def _mesh_cell(stem: str) -> str:
  name = html.escape(stem)
  return (
    f'<div><iframe src="meshes/{name}.html" title="{name}"></iframe>'
    f'<a href="meshes/{name}.glb">{name}.glb</a></div>'
  )


def _round_line(folder: pathlib.Path) -> str:
  files = sorted(folder.iterdir())
  links = ", ".join(f'<a href="rounds/{folder.name}/{f.name}">{f.name}</a>' for f in files)
  path = folder / "objective.json"
  told = ""
  if path.is_file():
    found = json.loads(path.read_text(encoding="utf-8"))
    terms = sorted(
      ((value, name) for name, value in found.items() if name.startswith("weighted/") and value),
      reverse=True,
    )
    parts = ", ".join(f"{name.removeprefix('weighted/')} {value:.3g}" for value, name in terms)
    told = f"; objective {found['loss/total']:.4g} ({parts})"
  return f"<li>round {folder.name}: {links}{html.escape(told)}</li>"
