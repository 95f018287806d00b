"""The tables that `experiments.ablate` makes: presets, budgets and folders, without its flags."""

import pathlib
from collections.abc import Sequence

from experiments.studies.ablation_table import Study
from umr_jax.config.presets import config_of

PRESETS = {"synthetic": "best", "planes": "planes"}
# What the presets were when the committed tables were begun: their seeds stay comparable.
_BEGUN = ("loss.flow_correction=0", "loss.mask=3", "loss.segmentation=0", "refine.steps=0")
# Beside that. The aeroplanes' tables are of parts made of keypoints, true ones not being there.
_ALWAYS = {"synthetic": (), "planes": ("data.parts=keypoints",)}
# A full budget is the preset's.
_SMALL = {
  "synthetic": (
    "train.steps=1000",
    "data.train_images=1000",
    "geometry.level=2",
    "loss.laplacian=0.07",
    *_BEGUN,
  ),
  "planes": ("train.steps=1000", *_BEGUN),
}
# There in a clone; an installed package has none.
_RESULTS = pathlib.Path(__file__).parent.parent / "results"


def study_of(
  dataset: str, budget: str, *, changes: Sequence[str] = (), out: str = "", workdir: str = ""
) -> Study:
  """The table that the flags of these names ask for.

  Args:
    dataset: a key of `PRESETS`.
    budget: small or full.
    changes: settings of all rows, each GROUP.NAME=VALUE.
    out: where rows and tables go; empty: to the committed ones, where there are any.
    workdir: where the runs go; empty: to runs/.
  """
  name = f"ablate-{dataset}-{budget}"
  runs = pathlib.Path(workdir or f"runs/{name}")
  settings = [*_ALWAYS[dataset], *(_SMALL[dataset] if budget == "small" else ()), *changes]
  made_of = f"the preset `{PRESETS[dataset]}`" + (
    " with " + ", ".join(settings) if settings else ""
  )
  if budget == "small":
    made_of += "; the small budget keeps the settings with which its tables were begun"
  return Study(
    dataset=dataset,
    budget=budget,
    base=config_of(PRESETS[dataset], settings),
    made_of=made_of,
    out=pathlib.Path(out) if out else _RESULTS / name if _RESULTS.is_dir() else runs,
    workdir=runs,
  )
