"""The figures of the supplementary for one run, and for those that it lacks the reason why."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from experiments.studies.ablation_rows import ROWS
from experiments.studies.figures import correspondence, grids, plots
from experiments.studies.figures.grids import Subjects, load_subjects
from umr_jax.files import write_text
from umr_jax.models.checkpoint import read_checkpoint
from umr_jax.viz.images import save_png


class MissingError(Exception):
  """A figure that cannot be made of this run, with the reason."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extras:
  """What some figures need besides the run."""

  images: pathlib.Path | None = None  # a folder of drawings and paintings
  compare: pathlib.Path | None = None  # a run without the texture cycle
  ablation: pathlib.Path | None = None  # the runs of `experiments.ablate`


def make_figures(
  workdir: pathlib.Path, out: pathlib.Path, *, extras: Extras, limit: int = 60
) -> dict[str, dict[str, str]]:
  """Writes every figure that the run allows.

  Args:
    workdir: the run.
    out: where figure_NN.png and figures.json are written.
    extras: what some figures need besides.
    limit: of the images that are reconstructed.

  Returns:
    By number: `what` the figure shows, with its `file`, or with `missing`, the reason.
  """
  subjects = load_subjects(workdir, limit=limit)
  made: dict[str, dict[str, str]] = {}
  for number, (what, figure) in enumerate(_figures(workdir, subjects, extras, limit), start=1):
    try:
      image = figure()
    except MissingError as reason:
      made[str(number)] = {"what": what, "missing": str(reason)}
      continue
    file = f"figure_{number:02d}.png"
    save_png(out / file, image)
    made[str(number)] = {"what": what, "file": file}
  write_text(out / "figures.json", json.dumps(made, indent=2) + "\n")
  return made


def _figures(
  workdir: pathlib.Path, subjects: Subjects, extras: Extras, limit: int
) -> list[tuple[str, Callable[[], np.ndarray]]]:
  """What each figure shows, and the function that makes it, in the supplementary's order."""
  bind = functools.partial
  return [
    ("drawings and paintings", bind(_drawings, workdir, extras)),
    ("vertices by part", bind(_vertex_parts, workdir, subjects)),
    ("the texture cycle", bind(correspondence.texture_cycle, subjects)),
    ("keypoint transfer", bind(correspondence.transfers, subjects)),
    ("parts before and after improvement", bind(_improvement, workdir)),
    ("architecture and objectives", bind(_architecture, subjects)),
    ("the template of each round", bind(grids.templates, workdir)),
    ("failures", bind(grids.failures, subjects)),
    ("precision and recall of keypoint transfer", bind(_precision_recall, workdir)),
    ("ablations, unseen views", bind(_ablations, extras)),
    ("transfer with and without the texture cycle", bind(_compared, subjects, extras, limit)),
    ("results", bind(grids.results, subjects)),
  ]


def _drawings(workdir: pathlib.Path, extras: Extras) -> np.ndarray:
  if extras.images is None:
    raise MissingError("name a folder of images with --images")
  return grids.drawings(workdir, extras.images)


def _vertex_parts(workdir: pathlib.Path, subjects: Subjects) -> np.ndarray:
  em_state = read_checkpoint(workdir).em_state
  if em_state.part_vertices is None or em_state.canonical_uv is None:
    raise MissingError("the run has no canonical part map: its data have no part maps")
  parts = em_state.canonical_uv.shape[-1] - 1
  return grids.vertex_parts(subjects, np.asarray(em_state.part_vertices), parts=parts)


def _improvement(workdir: pathlib.Path) -> np.ndarray:
  images = [
    folder / "parts" / "improvement.png"
    for folder in sorted((workdir / "improved").glob("[0-9]*"), key=lambda f: int(f.name))
  ]
  found = [path for path in images if path.is_file()]
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


def _architecture(subjects: Subjects) -> np.ndarray:
  return plots.pixels_of(plots.architecture_figure(subjects.config))


def _precision_recall(workdir: pathlib.Path) -> np.ndarray:
  path = workdir / "evaluation.json"
  evaluation = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
  curves = plots.curves_of(evaluation)
  if not curves:
    raise MissingError(
      "evaluation.json holds no precision-recall curve: the data have no keypoints"
    )
  return plots.pixels_of(plots.precision_recall_figure(curves))


def _compared(subjects: Subjects, extras: Extras, limit: int) -> np.ndarray:
  if extras.compare is None:
    raise MissingError("name a run that was trained without the texture cycle with --compare")
  other = load_subjects(extras.compare, limit=limit)
  if [c.name for c in other.crops] != [c.name for c in subjects.crops]:
    raise MissingError("the run to compare with has other images")
  both = [correspondence.transfers(one) for one in (subjects, other)]
  return np.concatenate(both, axis=1)
