"""Every metric that a run's data allows, on one split, into evaluation.json.

  python -m experiments.evaluate --workdir=runs/quickstart --split=test
  python -m experiments.evaluate --workdir=runs/planes --references

With --references also the numbers that need no learning, into references.json: the best constant
mask, and with true cameras and meshes the sphere, the medoid training shape, and the truth itself.
"""

import pathlib
import sys
from typing import Any

from absl import flags

from experiments import launch
from umr_jax.em.run import evaluate_workdir, references_workdir
from umr_jax.eval.summary import format_rows, format_table

_WORKDIR = flags.DEFINE_string("workdir", "runs/quickstart", "The run to evaluate.")
_SPLIT = flags.DEFINE_enum("split", "test", ["test", "train"], "Which images to evaluate on.")
_REFINE_STEPS = flags.DEFINE_integer(
  "refine_steps", None, "Another number of steps of refinement; 0: the network alone.", 0
)
_REFERENCES = flags.DEFINE_bool("references", False, "Also measure what needs no learning.")


def main() -> dict[str, Any]:
  """Evaluates the run's last good checkpoint."""
  workdir = pathlib.Path(_WORKDIR.value)
  evaluation = evaluate_workdir(workdir, split=_SPLIT.value, refine_steps=_REFINE_STEPS.value)
  sys.stderr.write(format_table(evaluation) + "\n")
  if _REFERENCES.value:
    rows = references_workdir(workdir, split=_SPLIT.value)
    sys.stderr.write("\n" + format_rows({**rows, "this run": evaluation}) + "\n")
  return evaluation


if __name__ == "__main__":
  launch.launch(main)
