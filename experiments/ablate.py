"""What each part of the method is worth: tables 1 and 2 of the supplementary, on one data set.

  python -m experiments.ablate --dataset=synthetic --budget=small
  python -m experiments.ablate --dataset=planes --rows=semantics,no_vertex_term --seeds=0

Every row is the preset `best` with one part more or less, at the same steps, with three seeds.
Writes a JSON file a row, table.md and table.csv; rows that are finished are skipped, so that the
command may be stopped and given again. The runs lie in runs/ablate-<dataset>-<budget>.
"""

import pathlib
import sys
from typing import Any

from absl import flags

from experiments import launch
from umr_jax.ablate import ROWS, SEEDS, Study, ablate

_PRESETS = {"synthetic": "best", "planes": "best_planes"}
# What the presets were when the committed tables were begun: their seeds stay comparable.
_BEGUN = ("loss.flow_correction=0", "loss.mask=3", "loss.segmentation=0", "refine.steps=0")
# Four to six minutes a run on 2 CPU cores; a full budget is what the preset says.
_SMALL = {
  "synthetic": ("train.steps=1000", "data.train_images=1000", "loss.laplacian=0.07", *_BEGUN),
  "planes": ("train.steps=1000", *_BEGUN),
}

_DATASET = flags.DEFINE_enum("dataset", "synthetic", list(_PRESETS), "Which data.")
_BUDGET = flags.DEFINE_enum("budget", "small", ["small", "full"], "Steps: few, or the preset's.")
_ROWS = flags.DEFINE_list("rows", list(ROWS), "Which rows, in the order in which they are run.")
_SEEDS = flags.DEFINE_list("seeds", [str(seed) for seed in SEEDS], "Which seeds.")
_OUT = flags.DEFINE_string("out", "", "Where tables go; default the runs' folder.")
_WORKDIR = flags.DEFINE_string("workdir", "", "The runs; default runs/ablate-<dataset>-<budget>.")
_SET = flags.DEFINE_multi_string("set", [], "A setting of every row, such as train.steps=500.")


def main() -> dict[str, Any]:
  """Makes the table that the flags name."""
  if unknown := sorted(set(_ROWS.value) - set(ROWS)):
    raise launch.UsageError(f"--rows: {', '.join(unknown)} is none of {', '.join(ROWS)}")
  if not all(seed.isdigit() for seed in _SEEDS.value):
    raise launch.UsageError(f"--seeds={','.join(_SEEDS.value)}: expected whole numbers")
  dataset, budget = _DATASET.value, _BUDGET.value
  steps = _SMALL[dataset] if budget == "small" else ()
  workdir = pathlib.Path(_WORKDIR.value or f"runs/ablate-{dataset}-{budget}")
  study = Study(
    dataset=dataset,
    budget=budget,
    base=launch.config_of(_PRESETS[dataset], [*steps, *_SET.value]),
    out=pathlib.Path(_OUT.value or workdir),
    workdir=workdir,
  )
  table = ablate(study, rows=_ROWS.value, seeds=[int(seed) for seed in _SEEDS.value])
  sys.stderr.write(table)
  return {"dataset": dataset, "budget": budget, "table": str(study.out / "table.md")}


if __name__ == "__main__":
  launch.launch(main)
