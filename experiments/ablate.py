"""What each part of the method is worth: tables 1 and 2 of the supplementary, on one data set.

  python -m experiments.ablate --dataset=synthetic --rows=semantics,no_vertex_term --seeds=0
  python -m experiments.ablate --dataset=planes --out=runs/afresh --workdir=runs/afresh

Every row is the preset `best` with one part more or less, at the same steps, with three seeds. A
run takes 4 to 10 minutes with the small budget; all rows with three seeds take a day.

Writes a JSON file a row, table.md and table.csv; rows that are finished are skipped, so that the
same command resumes a table that was interrupted. In a clone they lie in
experiments/results/ablate-<dataset>-<budget>, and the command adds to the rows that are
committed; --out names another folder, to start afresh. The runs, and unseen_views.png of those that
are there, lie in runs/ablate-<dataset>-<budget>.
"""

import sys
from typing import Any

from absl import flags

from experiments.studies.ablate import SEEDS, ablate
from experiments.studies.ablation_rows import ROWS
from experiments.studies.ablation_table import PRESETS, study_of
from umr_jax.errors import UsageError
from umr_jax.launch import launch

_DATASET = flags.DEFINE_enum("dataset", "synthetic", list(PRESETS), "Which data.")
_BUDGET = flags.DEFINE_enum("budget", "small", ["small", "full"], "Steps: few, or the preset's.")
_ROWS = flags.DEFINE_list("rows", list(ROWS), "Which rows, in the order in which they are run.")
_SEEDS = flags.DEFINE_list("seeds", [str(seed) for seed in SEEDS], "Which seeds.")
_OUT = flags.DEFINE_string("out", "", "Where rows and tables go; default the committed rows.")
_WORKDIR = flags.DEFINE_string("workdir", "", "The runs; default runs/ablate-<dataset>-<budget>.")
_SET = flags.DEFINE_multi_string("set", [], "A setting of every row, such as train.steps=500.")


def main() -> dict[str, Any]:
  """Makes the table that the flags name."""
  if unknown := sorted(set(_ROWS.value) - set(ROWS)):
    raise UsageError(f"--rows: {', '.join(unknown)} is none of {', '.join(ROWS)}")
  if not all(seed.isdigit() for seed in _SEEDS.value):
    raise UsageError(f"--seeds={','.join(_SEEDS.value)}: expected whole numbers")
  study = study_of(
    _DATASET.value, _BUDGET.value, changes=_SET.value, out=_OUT.value, workdir=_WORKDIR.value
  )
  table = ablate(study, rows=_ROWS.value, seeds=[int(seed) for seed in _SEEDS.value])
  sys.stderr.write(table)
  return {"dataset": study.dataset, "budget": study.budget, "table": str(study.out / "table.md")}


if __name__ == "__main__":
  launch(main)
