"""Learns parts anew from a run's reconstructions, and reconstruction anew from these parts.

  python -m experiments.improve_scops --help

The command `umr-jax improve`, in a clone; `run` is what it does, for a program of your own.
"""

from umr_jax.cli import run_command
from umr_jax.em.improve_parts import improve as run

__all__ = ["run"]

if __name__ == "__main__":
  run_command("improve")
