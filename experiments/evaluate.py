"""Every metric that a run's data allows, on one split, into evaluation.json.

python -m experiments.evaluate --workdir=runs/quickstart --split=test
"""

import pathlib
from typing import Any

from absl import flags

from experiments import launch
from umr_jax.pipeline import evaluate_workdir

_WORKDIR = flags.DEFINE_string("workdir", "runs/quickstart", "The run to evaluate.")
_SPLIT = flags.DEFINE_enum("split", "test", ["test", "train"], "Which images to evaluate on.")


def main() -> dict[str, Any]:
  """Evaluates the run's last good checkpoint."""
  return evaluate_workdir(pathlib.Path(_WORKDIR.value), split=_SPLIT.value)


if __name__ == "__main__":
  launch.launch(main)
