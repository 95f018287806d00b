"""Parts from reconstructions, and reconstructions from better parts (supplementary 1).

A run's canonical part map, rendered on its reconstructions, is a part map that is consistent over
all images and tells left from right. Where it fits the image's own parts well it is a pseudo label
with which the part network is trained anew; the next run is trained with that network's maps of all
images.

Source: Li et al. 2020, supplementary 1.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from umr_jax.config.build import from_saved
from umr_jax.config.settings import Config
from umr_jax.data.batching import evaluation_batches
from umr_jax.data.dataset import Dataset, load_annotated, load_dataset
from umr_jax.data.image_files import to_bytes
from umr_jax.data.part_store import PartStore, from_bytes, read_store
from umr_jax.data.transforms import Crop, CropSpec
from umr_jax.em.run import run
from umr_jax.eval.part_quality import part_report
from umr_jax.eval.shape_error import spread
from umr_jax.eval.workdir import final_evaluation
from umr_jax.files import write_text
from umr_jax.models.checkpoint import read_checkpoint
from umr_jax.models.infer import TrainedModel, load_model
from umr_jax.parts.crops import training_crops
from umr_jax.parts.discover import fit_pseudo_labels
from umr_jax.parts.prepare import with_parts
from umr_jax.parts.pseudo_labels import confident, inside_mask, make_pseudo_labels
from umr_jax.parts.segmenter import segment_dataset
from umr_jax.predict.test_time import make_infer
from umr_jax.random import Purpose, run_key
from umr_jax.types import Report
from umr_jax.viz.contact_sheet import write_parts
from umr_jax.viz.images import labelled_grid, save_png
from umr_jax.viz.panels import part_map

_BATCH = 16
# How many images the figure shows, of the confident ones and of the others each.
_SHOWN = 4
# The names of both kinds in the figure, and whether their images are confident.
_CONFIDENT = {"confident": True, "not confident": False}


class PseudoLabels(NamedTuple):
  """The parts of reconstructions: one row per training image."""

  names: tuple[str, ...]
  # [N, S, S, P + 1] uint8 in 0..255, as a store has them; zeros where there is none
  maps: np.ndarray
  chosen: np.ndarray  # [N] bool, the images whose labels are trained with


def improve(
  workdir: pathlib.Path, out: pathlib.Path, *, turns: int, replace_given: bool = False
) -> dict[str, Report]:
  """Improves a run's parts and trains anew with them, repeatedly.

  A turn that is finished is not done again.

  Args:
    workdir: a finished run whose config has semantic terms.
    out: where turn T leaves T/parts/{parts.npz, sheet.png, improvement.png} and its run.
    turns: how often.
    replace_given: also replace parts that were not discovered: the data's own, or keypoints'.

  Returns:
    "before", "turn 1", ...: each run's evaluation, and the quality of its parts where that can be
    measured (`eval.part_quality.part_report`). Also written as out/improvement.json.

  Raises:
    FileNotFoundError: if there is no checkpoint in the work directory.
    ValueError: if the run has no parts, or only such as must not be replaced.
  """
  snapshot = read_checkpoint(workdir)
  base = from_saved(snapshot.config)
  if snapshot.em_state.canonical_uv is None:
    raise ValueError(
      f"the run in {workdir} has no parts: train it with loss.part_vertices or "
      "loss.part_probability, such as --config=default"
    )
  # Discovered parts are no part of the data.
  if load_dataset(base.data).part_names and not replace_given:
    origin = "made of keypoints" if base.data.parts == "keypoints" else "the data's own"
    raise ValueError(
      f"the parts of the run in {workdir} are {origin}, and pseudo labels would "
      "take their place: give a run whose parts were discovered, or --replace_given"
    )
  reports = {"before": _report(workdir, base)}
  for turn in range(1, turns + 1):
    folder = out / str(turn)
    file = folder / "parts" / "parts.npz"
    if not file.is_file():
      _improve_parts(workdir, folder)
    data = dataclasses.replace(base.data, parts="file", part_file=str(file.resolve()))
    config = dataclasses.replace(base, data=data)
    if not _finished(folder, config):
      run(config, folder)
    workdir = folder
    reports[f"turn {turn}"] = _report(folder, config)
    write_text(out / "improvement.json", json.dumps(reports, indent=2) + "\n")
  return reports


def _finished(workdir: pathlib.Path, config: Config) -> bool:
  """Whether a run has taken its last step and written its evaluation, which is what it ends with.

  The evaluation alone is no evidence of that: an interrupted run can be evaluated, too.
  """
  if not (workdir / "evaluation.json").is_file():
    return False
  snapshot = read_checkpoint(workdir)
  rounds = int(snapshot.em_state.round)
  return rounds >= config.em.rounds and snapshot.step >= config.train.steps


def _report(workdir: pathlib.Path, config: Config) -> Report:
  """A run's evaluation with its parts' measures."""
  evaluation = final_evaluation(workdir)
  store = workdir / "parts" / "parts.npz"
  if store.is_file():
    truth = load_annotated(config.data)
    evaluation |= part_report(truth, read_store(store), seed=config.train.seed)
  return evaluation


def _improve_parts(workdir: pathlib.Path, folder: pathlib.Path) -> None:
  """One turn's parts: pseudo labels, a segmenter trained with them, its maps of all images."""
  trained = load_model(workdir)
  config = trained.config
  dataset, _ = with_parts(load_dataset(config.data), config)
  labels = pseudo_labels(dataset, trained)
  logging.info("%d of %d pseudo labels are confident.", labels.chosen.sum(), len(labels.chosen))
  crops = training_crops(dataset.splits["train"], config.parts, padding=config.data.padding)
  rows = {name: row for row, name in enumerate(labels.names)}
  order = [rows[name] for name in crops.names]
  maps = labels.maps[order]
  maps[~labels.chosen[order]] = 0
  segmenter = fit_pseudo_labels(dataset, config.parts, maps, padding=config.data.padding)
  store = segment_dataset(segmenter, dataset, config.parts, padding=config.data.padding)
  # The store last: its presence means that the turn's parts are complete.
  save_png(folder / "parts" / "improvement.png", _panel(dataset, config, labels, store))
  write_parts(folder, dataset, store)


def pseudo_labels(dataset: Dataset, trained: TrainedModel) -> PseudoLabels:
  """The parts of a run's reconstructions on its training images.

  Args:
    dataset: with the part maps that the run was trained with.
    trained: the run's model, with a canonical part map.
  """
  model, config = trained.model, trained.config
  infer = make_infer(config.at_round(trained.round))
  render = jax.jit(make_pseudo_labels(infer, image_size=config.data.image_size))
  key = run_key(config.train.seed, Purpose.PSEUDO_LABELS)
  size, channels = config.data.image_size, np.asarray(model.canonical_uv).shape[-1]
  maps = np.zeros((len(dataset.splits["train"]), size, size, channels), np.uint8)
  names: list[str] = []
  losses: list[tuple[float, float]] = []
  for batch, crops in _batches(dataset, config):
    labels = jax.device_get(render(model, batch, key))
    for row, crop in enumerate(crops):
      extended = maps[len(names)]
      extended[:] = to_bytes(inside_mask(labels.maps[row], crop.mask))
      names.append(crop.name)
      # Without known parts of the image there is nothing to compare a reconstruction with.
      known = crop.parts is not None and crop.parts[..., 1:].any() and extended.any()
      losses.append((labels.probability[row], labels.vertices[row]) if known else (np.inf, np.inf))
  probability, vertices = np.array(losses, np.float32).T
  chosen = confident(probability, vertices, share=config.parts.confident)
  return PseudoLabels(tuple(names), maps, chosen & np.isfinite(probability))


def _batches(dataset: Dataset, config: Config) -> Iterator[tuple[Any, list[Crop]]]:
  return evaluation_batches(
    dataset.splits["train"], CropSpec.from_config(config.data), batch_size=_BATCH
  )


def _panel(dataset: Dataset, config: Config, labels: PseudoLabels, after: PartStore) -> np.ndarray:
  """Images with their parts before, as reconstructed, and after (figure 5).

  Confident ones above, others below, as the name of the first column tells.
  """
  rows = {name: row for row, name in enumerate(after.names)}
  picked = {
    word: _spread(labels.chosen == is_confident) for word, is_confident in _CONFIDENT.items()
  }
  cells: dict[str, list[list[np.ndarray]]] = {word: [] for word in picked}
  for batch, crops in _batches(dataset, config):
    for index, crop in zip(batch.index, crops, strict=False):
      for word, some in picked.items():
        if int(index) in some and crop.parts is not None:
          reconstructed = from_bytes(labels.maps[int(index)])
          maps = [crop.parts, reconstructed, after.probabilities(rows[crop.name])]
          cells[word].append([crop.image, *map(part_map, maps)])
  grids = [
    labelled_grid(shown, [word, "before", "reconstructed", "after"], cell=128)
    for word, shown in cells.items()
    if shown
  ]
  return np.concatenate(grids)


def _spread(wanted: np.ndarray) -> set[int]:
  """Some of the rows where `wanted` [N] bool holds, evenly spaced."""
  rows = np.flatnonzero(wanted)
  return set(rows[spread(len(rows), _SHOWN)].tolist())
