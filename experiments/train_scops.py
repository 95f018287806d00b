"""Finds parts that all images of a category share, without labels; train does it by itself.

  python -m experiments.train_scops --help

The command `umr-jax parts`, in a clone; `run` is what it does, for a program of your own.
"""

from umr_jax.cli import run_command
from umr_jax.em.run import discover_parts as run

__all__ = ["run"]

if __name__ == "__main__":
  run_command("parts")
