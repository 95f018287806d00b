"""The paper's table for one data set: trains, evaluates, and prints ours beside the published rows.

  python -m experiments.reproduce --dataset=synthetic
  python -m experiments.reproduce --dataset=cub --set=data.folder=DIR
  python -m experiments.reproduce --dataset=planes --workdir=runs/planes --notrain

Writes results.json, table.md, table.csv and precision_recall.png into the work directory. The same
command resumes an interrupted run.
"""

import pathlib
import sys
from typing import Any

from absl import flags

from experiments.studies.reproduce import DATASETS, markdown, reproduce
from umr_jax.config.presets import config_of
from umr_jax.errors import UsageError
from umr_jax.launch import launch

_DATASET = flags.DEFINE_enum("dataset", "synthetic", list(DATASETS), "Which data.")
_WORKDIR = flags.DEFINE_string("workdir", "", "The run; default runs/reproduce-<dataset>.")
_TRAIN = flags.DEFINE_bool("train", True, "Train, or resume; without, the run is taken as it is.")
_ABLATION = flags.DEFINE_string("ablation", "", "A folder of experiments.ablate's rows to show.")
_SET = flags.DEFINE_multi_string("set", [], "A setting to change, such as data.folder=DIR.")


def main() -> dict[str, Any]:
  """Reproduces what the flags name."""
  if _SET.value and not _TRAIN.value:
    raise UsageError("--set changes how a run is trained; it does not go with --notrain")
  workdir = pathlib.Path(_WORKDIR.value or f"runs/reproduce-{_DATASET.value}")
  config = config_of(DATASETS[_DATASET.value], _SET.value) if _TRAIN.value else None
  ablation = pathlib.Path(_ABLATION.value) if _ABLATION.value else None
  results = reproduce(_DATASET.value, config, workdir, ablation=ablation)
  sys.stderr.write(markdown(results))
  return results


if __name__ == "__main__":
  launch(main)
