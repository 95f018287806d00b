"""Finds parts that all photographs of a category share, without labels; train does it by itself.

  python -m experiments.train_scops --config=parts --config.data.folder=DIR --workdir=runs/parts

Writes into the work directory parts/sheet.png, to look at, parts/parts.npz, which a training reads
with --config.data.parts=file --config.data.part_file=..., and parts.json, the measures that the
data allow. The parts also stay in data.cache, where a training with the same settings finds them.
"""

import dataclasses
import json
import pathlib
import sys
from typing import Any

from absl import flags
from ml_collections import config_flags

from experiments import launch
from umr_jax.config.settings import from_dict
from umr_jax.em.run import discover_parts

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, f"A preset ({', '.join(launch.preset_names())}) or a config file."
)
_WORKDIR = flags.DEFINE_string("workdir", "", "Default runs/parts-<config name>.")


def main() -> dict[str, Any]:
  """Discovers the parts that the flags describe; returns their measures."""
  name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
  workdir = pathlib.Path(_WORKDIR.value or pathlib.Path("runs") / f"parts-{name}")
  config = from_dict(_CONFIG.value.to_dict())
  config = dataclasses.replace(config, data=dataclasses.replace(config.data, parts="discovered"))
  report = discover_parts(config, workdir)
  sys.stderr.write(json.dumps(report, indent=2) + f"\nLook at {workdir / 'parts' / 'sheet.png'}\n")
  return report


if __name__ == "__main__":
  launch.launch(main)
