"""All figures of the supplementary that a run can show, and for the others the reason why not."""

import dataclasses
import io
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from experiments.studies.ablation_rows import ROWS
from experiments.studies.figures import architecture, correspondence, grids
from experiments.studies.figures.subjects import Subjects, load_subjects
from experiments.studies.reproduce import curves_of, draw_curves
from umr_jax.files import write_text
from umr_jax.models.checkpoint import read_checkpoint
from umr_jax.viz.panels import save_png


class MissingError(Exception):
  """A figure that cannot be drawn of this run, with the reason."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extras:
  """What some figures need besides the run."""

  images: pathlib.Path | None = None  # drawings and paintings
  compare: pathlib.Path | None = None  # a run without the texture cycle
  ablation: pathlib.Path | None = None  # the runs of `experiments.ablate`


def make_figures(
  workdir: pathlib.Path, out: pathlib.Path, *, extras: Extras, limit: int = 60
) -> dict[str, Any]:
  """Draws what it can into a folder.

  Args:
    workdir: the run.
    out: where figure_NN.png and figures.json are written.
    extras: what some figures need besides.
    limit: of the images that are reconstructed.

  Returns:
    By number: what the figure shows, with its `file`, or with `missing`, the reason.
  """
  subjects = load_subjects(workdir, limit=limit)
  drawn: dict[int, tuple[str, Callable[[], np.ndarray]]] = {
    1: ("drawings and paintings", lambda: _drawings(workdir, extras)),
    2: ("vertices by part", lambda: _vertex_parts(workdir, subjects)),
    3: ("the texture cycle", lambda: correspondence.texture_cycle(subjects)),
    4: ("keypoint transfer", lambda: correspondence.transfers(subjects)),
    5: ("parts before and after improvement", lambda: _improvement(workdir)),
    6: ("architecture and objectives", lambda: architecture.draw(subjects.config)),
    7: ("the template of each round", lambda: grids.templates(workdir)),
    8: ("failures", lambda: grids.failures(subjects)),
    9: ("precision and recall of keypoint transfer", lambda: _curves(workdir)),
    10: ("ablations, unseen views", lambda: _ablations(extras)),
    11: ("transfer with and without the texture cycle", lambda: _compared(subjects, extras, limit)),
    12: ("results", lambda: grids.results(subjects)),
  }
  made: dict[str, Any] = {}
  for number, (what, draw) in sorted(drawn.items()):
    try:
      picture = draw()
    except MissingError as reason:
      made[str(number)] = {"what": what, "missing": str(reason)}
      continue
    file = f"figure_{number:02d}.png"
    save_png(out / file, picture)
    made[str(number)] = {"what": what, "file": file}
  write_text(out / "figures.json", json.dumps(made, indent=2) + "\n")
  return made


def _drawings(workdir: pathlib.Path, extras: Extras) -> np.ndarray:
  if extras.images is None:
    raise MissingError("name a folder of pictures with --images")
  return grids.drawings(workdir, extras.images)


def _vertex_parts(workdir: pathlib.Path, subjects: Subjects) -> np.ndarray:
  em_state = read_checkpoint(workdir).em_state
  if em_state.part_vertices is None or em_state.canonical_uv is None:
    raise MissingError("the run has no canonical part map: its data have no part maps")
  parts = em_state.canonical_uv.shape[-1] - 1
  return grids.vertex_parts(subjects, np.asarray(em_state.part_vertices), parts=parts)


def _improvement(workdir: pathlib.Path) -> np.ndarray:
  pictures = [
    folder / "parts" / "improvement.png"
    for folder in sorted((workdir / "improved").glob("[0-9]*"), key=lambda f: int(f.name))
  ]
  found = [path for path in pictures if path.is_file()]
  if not found:
    raise MissingError(f"run experiments.improve_scops --workdir={workdir} first")
  with Image.open(found[-1]) as image:
    return np.asarray(image)


def _ablations(extras: Extras) -> np.ndarray:
  if extras.ablation is None:
    raise MissingError("name the runs of experiments.ablate with --ablation")
  try:
    return grids.unseen_views(extras.ablation, ROWS)
  except FileNotFoundError as error:
    raise MissingError(str(error)) from error


def _curves(workdir: pathlib.Path) -> np.ndarray:
  path = workdir / "evaluation.json"
  evaluation = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
  curves = curves_of(evaluation)
  if not curves:
    raise MissingError(
      "evaluation.json holds no precision-recall curve: the data have no keypoints"
    )
  with Image.open(io.BytesIO(draw_curves(curves))) as image:
    return np.asarray(image)


def _compared(subjects: Subjects, extras: Extras, limit: int) -> np.ndarray:
  if extras.compare is None:
    raise MissingError("name a run that was trained without the texture cycle with --compare")
  other = load_subjects(extras.compare, limit=limit)
  if [c.name for c in other.crops] != [c.name for c in subjects.crops]:
    raise MissingError("the run to compare with has other images")
  both = [correspondence.transfers(one) for one in (subjects, other)]
  return np.concatenate(both, axis=1)
