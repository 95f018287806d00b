"""The evaluation of a run by its work directory: what `umr-jax evaluate` does."""

import json
import pathlib

import jax
from absl import logging

from umr_jax.config.build import from_saved
from umr_jax.config.settings import Config
from umr_jax.data.dataset import Dataset, evaluation_split, load_dataset
from umr_jax.data.transforms import CropSpec
from umr_jax.eval.evaluate import Evaluation, evaluate
from umr_jax.eval.predictions import Protocol
from umr_jax.eval.references import references
from umr_jax.files import write_text
from umr_jax.models.checkpoint import read_checkpoint
from umr_jax.models.infer import build_topology_from, load_model
from umr_jax.predict.test_time import make_infer, with_steps
from umr_jax.types import Report


def evaluate_workdir(
  workdir: pathlib.Path,
  *,
  split: str,
  dataset: Dataset | None = None,
  refine_steps: int | None = None,
) -> Evaluation:
  """Evaluates a run's last good checkpoint and writes evaluation.json.

  Args:
    workdir: the run.
    split: "train" or "test".
    dataset: its data, if they are loaded already.
    refine_steps: steps of test-time optimisation, which fits meshes to the predicted silhouettes;
      by default those of the run's config.

  Returns:
    What evaluation.json holds, and the predictions.

  Raises:
    FileNotFoundError: if there is no checkpoint in the work directory.
  """
  trained = load_model(workdir)
  config = with_steps(trained.config, refine_steps)
  dataset = dataset or load_dataset(config.data)
  report, predictions = evaluate(
    trained.model,
    dataset,
    split,
    _protocol(config),
    step=trained.step,
    infer=make_infer(config.at_round(trained.round)),
  )
  if steps := config.refine.steps:
    report["protocol"] += f"; test-time optimisation, {steps} steps"
  report["refine_steps"] = steps
  if jax.process_index() == 0:
    write_text(workdir / "evaluation.json", json.dumps(report, indent=2) + "\n")
  return Evaluation(report, predictions)


def final_evaluation(workdir: pathlib.Path) -> Report:
  """The evaluation of a finished run: read from evaluation.json, or computed where that differs.

  `umr-jax evaluate` writes there what it was asked for, which may be of the training split, or with
  other steps of refinement; and the run may have been continued since.

  Raises:
    FileNotFoundError: if there is no checkpoint in the work directory.
  """
  snapshot = read_checkpoint(workdir)
  config = from_saved(snapshot.config)
  dataset = load_dataset(config.data)
  split = evaluation_split(dataset)
  path = workdir / "evaluation.json"
  found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
  wanted = {"split": split, "step": snapshot.step, "refine_steps": config.refine.steps}
  if all(found.get(name) == value for name, value in wanted.items()):
    return found
  logging.info("%s holds no evaluation of the run's last step: evaluating.", path)
  return evaluate_workdir(workdir, split=split, dataset=dataset).report


def references_workdir(workdir: pathlib.Path, *, split: str) -> dict[str, Report]:
  """What can be reached on a run's data without learning; writes references.json.

  Args:
    workdir: the run, whose data, crops and protocol are taken.
    split: "train" or "test".

  Returns:
    A report for each reference; see `eval.references.references`.
  """
  config = from_saved(read_checkpoint(workdir).config)
  found = references(
    load_dataset(config.data), build_topology_from(config), split, _protocol(config)
  )
  if jax.process_index() == 0:
    write_text(workdir / "references.json", json.dumps(found, indent=2) + "\n")
  return found


def _protocol(config: Config) -> Protocol:
  """How a run's model is evaluated."""
  return Protocol(
    spec=CropSpec.from_config(config.data),
    batch_size=config.train.batch_size,
    seed=config.train.seed,
  )
