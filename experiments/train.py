"""Learns a category from images and silhouettes: parts, rounds, evaluation, report.

  python -m experiments.train --help

The command `umr-jax train`, in a clone; `run` is what it does, for a program of your own.
"""

from umr_jax.cli import run_command
from umr_jax.em.run import run

__all__ = ["run"]

if __name__ == "__main__":
  run_command("train")
