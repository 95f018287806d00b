"""Parts from reconstructions, and reconstructions from better parts (supplementary 1).

A run's canonical part map, drawn on its reconstructions, is a part map that all images agree on and
that knows left from right of the object's far side. Where it fits the image's own parts well it
teaches the part network anew; the network's maps of all images are what the next run learns from.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from umr_jax import viz
from umr_jax.checkpoint import Snapshot, read_checkpoint
from umr_jax.config import Config, from_dict
from umr_jax.contact_sheet import write_parts
from umr_jax.data.batching import evaluation_batches
from umr_jax.data.dataset import Dataset, load_dataset, shown_split
from umr_jax.data.part_store import PartStore, read_store
from umr_jax.data.transforms import Crop
from umr_jax.em.e_step import run_key
from umr_jax.eval.part_quality import part_report
from umr_jax.files import write_text
from umr_jax.pipeline import evaluate_workdir, run
from umr_jax.refinement import reconstructor
from umr_jax.scops.crops import learned_crops
from umr_jax.scops.discover import cut_dataset, taught_cut
from umr_jax.scops.prepare import with_parts
from umr_jax.scops.pseudo_parts import inside_mask, make_look, reliable

_BATCH = 16
# Photographs of the picture that shows parts before and after.
_SHOWN = 8


class Taught(NamedTuple):
  """What reconstructions teach: one row per training image."""

  names: tuple[str, ...]
  maps: np.ndarray  # [N, S, S, P + 1], all zeros where there is nothing to teach
  chosen: np.ndarray  # [N] bool, the images that teach


def improve(workdir: pathlib.Path, out: pathlib.Path, *, turns: int) -> dict[str, dict[str, Any]]:
  """Improves a run's parts and trains anew with them, so many times.

  A turn that is finished is not done again.

  Args:
    workdir: a finished run whose config has semantic terms.
    out: where turn T leaves T/parts/{parts.npz, sheet.png, improvement.png} and its run.
    turns: how many.

  Returns:
    "before", "turn 1", ...: each run's evaluation, and how good its parts are where that can be
    told (`eval.part_quality.part_report`). Also written as out/improvement.json.

  Raises:
    FileNotFoundError: if there is no checkpoint in the work directory.
    ValueError: if the run knows no parts.
  """
  base = from_dict(read_checkpoint(workdir).config)
  reports = {"before": _report(workdir, base)}
  for turn in range(1, turns + 1):
    folder = out / str(turn)
    file = folder / "parts" / "parts.npz"
    if not file.is_file():
      _improve_parts(workdir, folder)
    data = dataclasses.replace(base.data, parts="file", part_file=str(file.resolve()))
    config = dataclasses.replace(base, data=data)
    # What a run ends with: it is not evaluated again.
    if not (folder / "evaluation.json").is_file():
      run(config, folder)
    workdir = folder
    reports[f"turn {turn}"] = _report(folder, config)
    write_text(out / "improvement.json", json.dumps(reports, indent=2) + "\n")
  return reports


def _report(workdir: pathlib.Path, config: Config) -> dict[str, Any]:
  """A run's evaluation with its parts' measures."""
  path = workdir / "evaluation.json"
  if path.is_file():
    evaluation = json.loads(path.read_text(encoding="utf-8"))
  else:
    dataset = load_dataset(config.data)
    evaluation = evaluate_workdir(workdir, split=shown_split(dataset), dataset=dataset)
  store = workdir / "parts" / "parts.npz"
  if store.is_file():
    truth = load_dataset(dataclasses.replace(config.data, parts="given", part_file=""))
    evaluation |= part_report(truth, read_store(store), seed=config.train.seed)
  return evaluation


def _improve_parts(workdir: pathlib.Path, folder: pathlib.Path) -> None:
  """One turn's parts: drawn, chosen, taught, and cut out of all images."""
  snapshot = read_checkpoint(workdir)
  config = from_dict(snapshot.config)
  if snapshot.em_state.canonical_uv is None:
    raise ValueError(
      f"the run in {workdir} knows no parts: train it with loss.part_vertices or "
      "loss.part_probability, such as --config=best"
    )
  dataset, _ = with_parts(load_dataset(config.data), config)
  taught = teach(dataset, snapshot, config)
  logging.info("%d of %d reconstructions teach parts.", taught.chosen.sum(), len(taught.chosen))
  crops = learned_crops(dataset, config.parts, padding=config.data.padding)
  rows = {name: row for row, name in enumerate(taught.names)}
  order = [rows[name] for name in crops.names]
  maps = np.where(taught.chosen[order, None, None, None], taught.maps[order], np.float32(0.0))
  cut = taught_cut(dataset, config.parts, maps, padding=config.data.padding)
  store = cut_dataset(cut, dataset, config.parts, padding=config.data.padding)
  # The store last: it says that the turn's parts are complete.
  viz.save_png(folder / "parts" / "improvement.png", _panel(dataset, config, taught, store))
  write_parts(folder, dataset, store)


def teach(dataset: Dataset, snapshot: Snapshot, config: Config) -> Taught:
  """The parts that a run's reconstructions show on its training images.

  Args:
    dataset: with the part maps that the run learned from.
    snapshot: of the run.
    config: of the run.
  """
  infer, topology = reconstructor(config, snapshot.em_state, step=snapshot.step)
  look = jax.jit(make_look(infer, topology=topology, image_size=config.data.image_size))
  params, key = snapshot.ema_params or snapshot.params, run_key(config.train)
  names, maps, losses = [], [], []
  for batch, crops in _batches(dataset, config):
    seen = jax.device_get(look(params, snapshot.batch_stats, snapshot.em_state, batch, key))
    for row, crop in enumerate(crops):
      names.append(crop.name)
      maps.append(inside_mask(seen.maps[row], crop.mask))
      # An image whose parts are not known has nothing that a reconstruction could agree with.
      known = crop.parts is not None and crop.parts[..., 1:].any() and maps[-1].any()
      losses.append((seen.probability[row], seen.vertices[row]) if known else (np.inf, np.inf))
  probability, vertices = np.array(losses, np.float32).T
  chosen = reliable(probability, vertices, share=config.parts.reliable)
  return Taught(tuple(names), np.stack(maps), chosen & np.isfinite(probability))


def _batches(dataset: Dataset, config: Config) -> Iterator[tuple[Any, list[Crop]]]:
  return evaluation_batches(
    dataset.splits["train"],
    batch_size=_BATCH,
    image_size=config.data.image_size,
    padding=config.data.padding,
  )


def _panel(dataset: Dataset, config: Config, taught: Taught, after: PartStore) -> np.ndarray:
  """Photographs that teach, with their parts before, as reconstructed, and after (figure 5)."""
  rows = {name: row for row, name in enumerate(after.names)}
  chosen = np.flatnonzero(taught.chosen)
  shown = set(chosen[np.linspace(0, len(chosen) - 1, min(_SHOWN, len(chosen))).astype(int)])
  cells = []
  for batch, crops in _batches(dataset, config):
    for index, crop in zip(batch.index, crops, strict=False):
      if int(index) in shown and crop.parts is not None:
        maps = [crop.parts, taught.maps[int(index)], after.probabilities(rows[crop.name])]
        cells.append([crop.image, *(viz.part_map(m) / np.float32(255.0) for m in maps)])
  return viz.labelled_grid(cells, ["photograph", "before", "reconstructed", "after"], cell=128)
