"""The paper's table for one data set, or one table of all categories: trains, evaluates, prints.

  python -m experiments.reproduce --dataset=synthetic
  python -m experiments.reproduce --dataset=cub --set=data.folder=DIR
  python -m experiments.reproduce --dataset=planes --workdir=runs/planes --notrain
  python -m experiments.reproduce --table=categories --seeds=3

Writes results.json, table.md and table.csv into the work directory; for one data set ours beside
the published rows, and precision_recall.png. The same command resumes an interrupted run.
"""

import pathlib
import sys
from typing import Any

from absl import flags

from experiments.studies import categories
from experiments.studies.reproduce import DATASETS, markdown, reproduce
from umr_jax.config.presets import config_of
from umr_jax.errors import UsageError
from umr_jax.launch import launch

_TABLE = flags.DEFINE_enum("table", "dataset", ["dataset", "categories"], "Which table.")
_CATEGORIES = flags.DEFINE_multi_enum(
  "category", list(categories.CATEGORIES), list(categories.CATEGORIES), "Of --table=categories."
)
_SEEDS = flags.DEFINE_integer("seeds", 3, "How many, of --table=categories.", lower_bound=1)
_DATASET = flags.DEFINE_enum("dataset", "synthetic", list(DATASETS), "Which data.")
_WORKDIR = flags.DEFINE_string("workdir", "", "The runs; default runs/reproduce-NAME.")
_TRAIN = flags.DEFINE_bool("train", True, "Train, or resume; without, the run is taken as it is.")
_ABLATION = flags.DEFINE_string("ablation", "", "A folder of experiments.ablate's rows to show.")
_SET = flags.DEFINE_multi_string("set", [], "A setting to change, such as data.folder=DIR.")


def main() -> dict[str, Any]:
  """Reproduces what the flags name."""
  if _SET.value and not _TRAIN.value:
    raise UsageError("--set changes how a run is trained; it does not go with --notrain")
  categorical = _TABLE.value == "categories"
  name = "categories" if categorical else _DATASET.value
  workdir = pathlib.Path(_WORKDIR.value or f"runs/reproduce-{name}")
  if categorical:
    if not _TRAIN.value or _ABLATION.value:
      raise UsageError("--notrain and --ablation are of one data set, not of --table=categories")
    found = categories.categories(_CATEGORIES.value, _SET.value, workdir, seeds=_SEEDS.value)
    sys.stderr.write(categories.markdown(found))
    return categories.told(found)
  config = config_of(DATASETS[_DATASET.value], _SET.value) if _TRAIN.value else None
  ablation = pathlib.Path(_ABLATION.value) if _ABLATION.value else None
  results = reproduce(_DATASET.value, config, workdir, ablation=ablation)
  sys.stderr.write(markdown(results))
  return results


if __name__ == "__main__":
  launch(main)
