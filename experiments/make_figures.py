"""The figures of the supplementary, of a run.

  python -m experiments.make_figures --workdir=runs/planes
  python -m experiments.make_figures --workdir=runs/planes --images=drawings --compare=runs/nocycle

Writes figure_NN.png and figures.json, with the reason for each figure that cannot be made, into
WORKDIR/figures or --out.
"""

import pathlib
from typing import Any

from absl import flags

from experiments.studies.figures.make import Extras, make_figures
from umr_jax.launch import launch

_WORKDIR = flags.DEFINE_string("workdir", "runs/quickstart", "The run.")
_OUT = flags.DEFINE_string("out", "", "Where the figures go; default WORKDIR/figures.")
_IMAGES = flags.DEFINE_string("images", "", "A folder of drawings and paintings, for figure 1.")
_COMPARE = flags.DEFINE_string("compare", "", "A run without the texture cycle, for figure 11.")
_ABLATION = flags.DEFINE_string("ablation", "", "The runs of experiments.ablate, for figure 10.")
_LIMIT = flags.DEFINE_integer("limit", 60, "Images that are reconstructed.", lower_bound=2)


def main() -> dict[str, Any]:
  """Makes all figures that can be made."""
  workdir = pathlib.Path(_WORKDIR.value)
  extras = Extras(
    images=pathlib.Path(_IMAGES.value) if _IMAGES.value else None,
    compare=pathlib.Path(_COMPARE.value) if _COMPARE.value else None,
    ablation=pathlib.Path(_ABLATION.value) if _ABLATION.value else None,
  )
  out = pathlib.Path(_OUT.value) if _OUT.value else workdir / "figures"
  return make_figures(workdir, out, extras=extras, limit=_LIMIT.value)


if __name__ == "__main__":
  launch(main)
