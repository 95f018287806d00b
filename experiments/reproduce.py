"""The paper's table for one data set: trains, evaluates, and prints ours beside the published rows.

  python -m experiments.reproduce --dataset=synthetic
  python -m experiments.reproduce --dataset=cub --set=data.folder=DIR
  python -m experiments.reproduce --dataset=planes --workdir=runs/planes --notrain

Writes results.json, table.md, table.csv and precision_recall.png into the work directory. A run
that was interrupted goes on.
"""

import ast
import importlib
import pathlib
import sys
from typing import Any

from absl import flags

from experiments import launch
from umr_jax.config import Config, from_dict
from umr_jax.reproduce import markdown, reproduce

_CONFIGS = {"synthetic": "quickstart"}
_DATASETS = (
  "cub", "car", "motorbike", "horse", "cow", "zebra", "penguin", "planes", "synthetic",
)  # fmt: skip

_DATASET = flags.DEFINE_enum("dataset", "synthetic", list(_DATASETS), "Which data.")
_WORKDIR = flags.DEFINE_string("workdir", "", "The run; default runs/reproduce-<dataset>.")
_TRAIN = flags.DEFINE_bool("train", True, "Train, or go on; without, the run is taken as it is.")
_SET = flags.DEFINE_multi_string("set", [], "A setting to change, such as data.folder=DIR.")


def config_of(dataset: str, changes: list[str]) -> Config:
  """The configuration of a data set's file, with changes of the form NAME=VALUE."""
  module = importlib.import_module(f"experiments.configs.{_CONFIGS.get(dataset, dataset)}")
  settings = module.get_config().to_dict()
  for change in changes:
    name, equals, text = change.partition("=")
    *groups, last = name.split(".")
    group = settings
    for key in groups:
      group = group.get(key) if isinstance(group, dict) else None
    known = isinstance(group, dict) and last in group and not isinstance(group[last], dict)
    if not equals or not known:
      raise launch.UsageError(f"--set={change}: expected GROUP.NAME=VALUE of a known setting")
    try:
      group[last] = ast.literal_eval(text)
    except (ValueError, SyntaxError):
      group[last] = text  # a word or a path
  return from_dict(settings)


def main() -> dict[str, Any]:
  """Reproduces what the flags name."""
  if _SET.value and not _TRAIN.value:
    raise launch.UsageError("--set changes how a run is trained; it does not go with --notrain")
  workdir = pathlib.Path(_WORKDIR.value or f"runs/reproduce-{_DATASET.value}")
  config = config_of(_DATASET.value, _SET.value) if _TRAIN.value else None
  results = reproduce(_DATASET.value, config, workdir, workdir)
  sys.stderr.write(markdown(results))
  return results


if __name__ == "__main__":
  launch.launch(main)
