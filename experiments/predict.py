"""Photographs to textured meshes, with a trained run.

  python -m experiments.predict --help

The command `umr-jax predict`, in a clone; `run` is what it does, for a program of your own.
"""

from umr_jax.cli import run_command
from umr_jax.viz.gallery import predict_folder as run

__all__ = ["run"]

if __name__ == "__main__":
  run_command("predict")
