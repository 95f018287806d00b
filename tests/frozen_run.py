"""The runs whose results `test_frozen_behaviour.py` holds fixed, and their checksums.

As a script it runs one of them and prints its recording, checksums as JSON:

    XLA_FLAGS=--xla_cpu_use_fusion_emitters=false JAX_DISABLE_MOST_OPTIMIZATIONS=0 \\
      python -m tests.frozen_run best

(1 for paper; both as in the test.)

tests/golden/frozen_best.json (likewise paper) is a list of recordings, one for each kind of machine
that made one; a machine of another kind appends its own. A change that moves bits appends what it
prints and marks those of before it as "superseded", with the reason, which its commit gives, too.
One that computes something else, and not the same in another order, begins a new "generation".
"""

import dataclasses
import hashlib
import json
import pathlib
import platform
import re
import sys
import tempfile

import jax
import numpy as np

from umr_jax.config import settings as config
from umr_jax.config.presets import config_of
from umr_jax.data.dataset import load_dataset
from umr_jax.em.loop import EMLoop
from umr_jax.em.monitor import Monitor
from umr_jax.em.run import panel_images
from umr_jax.parts.prepare import with_parts
from umr_jax.train.checkpoint import Checkpointer
from umr_jax.types import EMState, TrainState


class NoPanels(Monitor):
  """Panels would compile what the network's training does not need."""

  def panel(self, *_: object) -> None:
    """Writes nothing."""


def best_config(cache: pathlib.Path) -> config.Config:
  """Preset `best` for twenty steps on two dozen images, with two M-steps of either kind."""
  return config_of(
    "best",
    [
      # The shrink-wrap of a finer mesh is the same code for longer.
      "geometry.level=1",
      "train.steps=20",
      "train.batch_size=4",
      "data.train_images=24",
      "data.test_images=2",
      f"data.cache={cache}",
      "em.template_every=10",
      "em.parts_every=10",
      "refine.steps=2",
      "checkpoint.every=100",
      "log.every=10",
      "log.panel_every=100",
    ],
  )


def paper_config(cache: pathlib.Path) -> config.Config:
  """Preset `paper` with a small network on small images: three steps in each of its two rounds.

  What is compiled for longer and trained alike is smaller, too: the texture's stem, the hypotheses.
  """
  return config_of(
    "paper",
    [
      "geometry.level=1",
      "geometry.texels_per_side=2",
      "geometry.uv_height=16",
      "data.source=synthetic",
      "data.folder=",
      "data.image_size=64",
      "data.train_images=12",
      "data.test_images=2",
      f"data.cache={cache}",
      "model.encoder_width=8",
      "model.encoder_weights=none",
      "model.texture_stem=conv",
      "render.image_size=32",
      "render.antialias=1",
      "em.hypotheses=(1, 4)",
      "loss.perceptual_weights=none",
      "loss.deformation_start=1",
      "train.steps=6",
      "train.batch_size=4",
      "em.template_every=2",
      "checkpoint.every=100",
      "log.every=3",
      "log.panel_every=100",
    ],
  )


CASES = {"best": best_config, "paper": paper_config}
# JAX_DISABLE_MOST_OPTIMIZATIONS: `paper` compiles for longer than it runs, `best` does not.
UNOPTIMIZED = {"best": "0", "paper": "1"}


def checksums(tree: object) -> dict[str, list]:
  """For every array of a pytree: the start of its bytes' SHA-256, and three sums in float64.

  The sums (of values, of magnitudes, and of values under signs that depend on the position) tell
  how far apart two results are where their bytes differ.
  """
  found = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    array = np.asarray(leaf)
    flat = array.astype(np.float64).ravel()
    signs = np.random.default_rng(0).choice([-1.0, 1.0], flat.size)
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
    sums = [float(flat.sum()), float(np.abs(flat).sum()), float(flat @ signs)]
    found[jax.tree_util.keystr(path, simple=True, separator="/")] = [digest, *sums]
  return found


def train(settings: config.Config, workdir: pathlib.Path) -> tuple[TrainState, EMState]:
  """Trains from nothing, without panels, evaluation and report."""
  dataset, _ = with_parts(load_dataset(settings.data), settings)
  with (
    Checkpointer(workdir / "checkpoints", keep=1) as checkpointer,
    NoPanels(settings, workdir, panel_images(dataset, settings)) as monitor,
  ):
    return EMLoop(
      config=settings,
      train_split=dataset.splits["train"],
      checkpointer=checkpointer,
      monitor=monitor,
    ).run()


def result_of(case: str) -> dict[str, object]:
  """Runs a case from nothing, and describes where and as what it ended."""
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    train_state, em_state = train(CASES[case](root / "cache"), root)
  return {
    "machine": machine(),
    "params": checksums(train_state.params),
    "template": checksums(dataclasses.asdict(em_state.template)),
    "canonical_uv": checksums(em_state.canonical_uv),
  }


def as_text(result: dict[str, object]) -> str:
  """JSON with a line for each array."""
  text = json.dumps(result, indent=1)
  return re.sub(r"\[\s+([^\[\]]+?)\s+\]", lambda m: "[" + " ".join(m[1].split()) + "]", text) + "\n"


def machine() -> str:
  """What the last bits of a float32 sum depend on."""
  flags = set()
  info = pathlib.Path("/proc/cpuinfo")
  if info.exists():
    line = next((x for x in info.read_text().splitlines() if x.startswith("flags")), "")
    flags = {"avx2", "avx512f", "avx512_bf16", "amx_tile"} & set(line.split())
  return f"jax {jax.__version__}, {platform.machine()}, {' '.join(sorted(flags))}"


if __name__ == "__main__":
  sys.stdout.write(as_text(result_of(sys.argv[1])))
