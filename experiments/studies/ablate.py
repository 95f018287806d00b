"""Ablations: the same run without one part of the method, over several seeds, in one table.

Every row gets the same data, and the same steps unless the row names others. A row's result is a
file; rows that have one are not run again, so that a table may be made over days, and rows be added
to it.
"""

import gc
import json
import pathlib
from collections.abc import Sequence

import jax
from absl import logging

from experiments.studies.ablation_rows import ROWS, config_of_row
from experiments.studies.ablation_table import (
  Study,
  add_result,
  read_all,
  read_results,
  write_table,
)
from experiments.studies.figures import grids
from umr_jax.config.settings import Config
from umr_jax.em.improve_parts import improve
from umr_jax.em.run import run
from umr_jax.types import Report
from umr_jax.viz.images import save_png

SEEDS = (0, 1, 2)
# The supplementary's figure 10.
_SHOWN = ("nothing", "template", "semantics", "adversary")


def ablate(study: Study, *, rows: Sequence[str] = tuple(ROWS), seeds: Sequence[int] = SEEDS) -> str:
  """Runs what is missing, writes the table, and an image of unseen views.

  Args:
    study: the table.
    rows: keys of `ROWS`, in the order in which they are run.
    seeds: of every row.

  Returns:
    The table as markdown.

  Raises:
    ValueError: if a finished row was made with other settings than it would have now.
  """
  read_all(study)  # A row that does not belong to the table is an error now, not after hours.
  for seed in seeds:
    for name in rows:
      if str(seed) in read_results(study, name)["seeds"]:
        continue
      logging.info("Row %s, seed %d.", name, seed)
      add_result(study, name, seed=seed, evaluation=_evaluation(study, name, seed))
      write_table(study)
  _write_unseen_views(study)
  return write_table(study)


def _evaluation(study: Study, name: str, seed: int) -> Report:
  """The evaluation of a row's run, which resumes where it stopped."""
  row, folder = ROWS[name], study.workdir / name / str(seed)
  if row.improves:
    _evaluation(study, row.improves, seed)
    evaluation = improve(study.workdir / row.improves / str(seed), folder, turns=1)["turn 1"]
  else:
    config = config_of_row(study.base, row, seed=seed)
    _refuse_other_length(folder, config)
    evaluation = run(config, folder).evaluation
  # Dozens of compiled programs would fill the memory, and Linux's table of memory maps.
  jax.clear_caches()
  gc.collect()
  return evaluation


def _refuse_other_length(folder: pathlib.Path, config: Config) -> None:
  """Raises ValueError for a folder with a run of other steps, whose schedule has ended."""
  path = folder / "config.json"
  if path.is_file():
    steps = json.loads(path.read_text(encoding="utf-8"))["train"]["steps"]
    if steps != config.train.steps:
      raise ValueError(
        f"{folder} holds a run of {steps} steps, not {config.train.steps}; name another --workdir"
      )


def _write_unseen_views(study: Study) -> None:
  """Shows the runs in the study's folder: those of the table may be on another machine."""
  path = study.workdir / "unseen_views.png"
  try:
    image = grids.unseen_views(study.workdir, {name: ROWS[name] for name in _SHOWN})
  except FileNotFoundError as reason:
    logging.info("No %s: %s.", path, reason)
    return
  save_png(path, image)
  logging.info("Unseen views: %s", path)
