"""Learns a category from photographs and silhouettes: parts, rounds, evaluation, report.

  python -m experiments.train                                   # the embedded category
  python -m experiments.train --config=parts --config.data.folder=DIR --workdir=runs/mine

The same command, given again, goes on where an interrupted run stopped.
"""

import pathlib
from typing import Any

from absl import flags
from ml_collections import config_flags

from experiments import launch
from umr_jax.config.settings import from_dict
from umr_jax.em.run import run

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  f"A preset ({', '.join(launch.preset_names())}) or a config file.",
)
_WORKDIR = flags.DEFINE_string("workdir", "", "Where the run lives; default runs/<config name>.")


def main() -> dict[str, Any]:
  """Runs the configuration that the flags describe; returns the test split's evaluation."""
  name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
  workdir = pathlib.Path(_WORKDIR.value or pathlib.Path("runs") / name)
  return run(from_dict(_CONFIG.value.to_dict()), workdir).evaluation


if __name__ == "__main__":
  launch.launch(main)
