"""Learns parts anew from a run's reconstructions, and reconstruction anew from these parts.

  python -m experiments.improve_scops --workdir=runs/mine --turns=1

The run's parts were discovered, as with --config=parts. Those that the data have, or that were made
of keypoints, are replaced with --replace_given alone.

Turn T leaves WORKDIR/improved/T: parts/improvement.png (photographs, parts before, as reconstructed
and after), and a whole run. Finished turns are not done again. improvement.json compares them.
"""

import pathlib
import sys
from typing import Any

from absl import flags

from experiments import launch
from umr_jax.em.improve_parts import improve
from umr_jax.eval.summary import format_rows

_WORKDIR = flags.DEFINE_string("workdir", "", "A finished run whose parts were discovered.")
_OUT = flags.DEFINE_string("out", "", "Where the turns go; default WORKDIR/improved.")
_TURNS = flags.DEFINE_integer("turns", 1, "How often parts are learned anew.", lower_bound=1)
_REPLACE_GIVEN = flags.DEFINE_bool(
  "replace_given", False, "Also replace parts that are the data's own or were made of keypoints."
)


def main() -> dict[str, Any]:
  """Improves the parts of the run in the work directory; returns its measures before and after."""
  if not _WORKDIR.value:
    raise launch.UsageError("--workdir is missing: name a finished run, such as runs/mine")
  workdir = pathlib.Path(_WORKDIR.value)
  out = pathlib.Path(_OUT.value) if _OUT.value else workdir / "improved"
  reports = improve(workdir, out, turns=_TURNS.value, replace_given=_REPLACE_GIVEN.value)
  sys.stderr.write("\n" + format_rows(reports) + "\n")
  return reports


if __name__ == "__main__":
  launch.launch(main)
