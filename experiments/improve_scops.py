"""Learns parts anew from a run's reconstructions, and reconstruction anew from these parts.

  python -m experiments.improve_scops --workdir=runs/best --turns=1

Turn T leaves WORKDIR/improved/T: parts/improvement.png (photographs, parts before, as reconstructed
and after), and a whole run. Finished turns are not done again. improvement.json compares them.
"""

import pathlib
import sys
from typing import Any

from absl import flags

from experiments import launch
from umr_jax.eval.summary import format_rows
from umr_jax.improve import improve

_WORKDIR = flags.DEFINE_string("workdir", "runs/best", "A finished run that knows parts.")
_OUT = flags.DEFINE_string("out", "", "Where the turns go; default WORKDIR/improved.")
_TURNS = flags.DEFINE_integer("turns", 1, "How often parts are learned anew.", lower_bound=1)


def main() -> dict[str, Any]:
  """Improves the parts of the run in the work directory; returns its measures before and after."""
  workdir = pathlib.Path(_WORKDIR.value)
  out = pathlib.Path(_OUT.value) if _OUT.value else workdir / "improved"
  reports = improve(workdir, out, turns=_TURNS.value)
  sys.stderr.write("\n" + format_rows(reports) + "\n")
  return reports


if __name__ == "__main__":
  launch.launch(main)
