"""Every metric that a run's data allows, on one split, into evaluation.json.

  python -m experiments.evaluate --help

The command `umr-jax evaluate`, in a clone; `run` is what it does, for a program of your own.
"""

from umr_jax.cli import run_command
from umr_jax.eval.workdir import evaluate_workdir as run

__all__ = ["run"]

if __name__ == "__main__":
  run_command("evaluate")
