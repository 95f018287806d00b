"""A whole run: data, the EM rounds, evaluation, and a report."""

import dataclasses
import itertools
import json
import pathlib
import sys
import time

import jax
from absl import logging

from umr_jax.config.build import differences
from umr_jax.config.checks import check_trainable
from umr_jax.config.settings import Config, to_dict
from umr_jax.data.batching import evaluation_batches
from umr_jax.data.dataset import Dataset, evaluation_split, load_annotated, load_dataset
from umr_jax.data.transforms import CropSpec
from umr_jax.em.loop import EMLoop
from umr_jax.em.monitor import Monitor, read_objectives, read_template_sizes
from umr_jax.eval.part_quality import part_report
from umr_jax.eval.summary import format_table
from umr_jax.eval.template_truth import TemplateTruth
from umr_jax.eval.workdir import evaluate_workdir
from umr_jax.files import write_text
from umr_jax.models.checkpoint import saved_steps
from umr_jax.models.initialize import encoder_file
from umr_jax.parts.prepare import discovered, with_parts
from umr_jax.train import parallel
from umr_jax.train.checkpoint import Checkpointer
from umr_jax.types import Batch, EMState, Report, TrainState
from umr_jax.viz.contact_sheet import write_parts
from umr_jax.viz.report import write_report

# How many images the panels show.
_PANEL_IMAGES = 6


@dataclasses.dataclass(frozen=True, eq=False)
class RunResult:
  """What a run ends with."""

  train_state: TrainState
  em_state: EMState
  evaluation: Report
  # For each round its objective, the terms of it, and the change of the template.
  objectives: list[Report]


def run(config: Config, workdir: pathlib.Path) -> RunResult:
  """Trains, evaluates and reports; resumes where the work directory's run stopped.

  Args:
    config: everything about the run.
    workdir: where it lives; made if missing.

  Returns:
    The final states, and the test split's evaluation.

  Raises:
    ValueError: if the work directory belongs to another config, the data are unusable, or JAX is
      set to 64 bits.
    OSError: if the work directory cannot be written, or a weight file is missing.
    Preempted: if a signal asked the run to stop; it was saved.
    NonFiniteError: if a metric is no longer finite; the last good checkpoint stays.
  """
  began = time.monotonic()
  if jax.config.read("jax_enable_x64"):
    raise ValueError("training runs in float32: unset JAX_ENABLE_X64, which is set")
  parallel.initialize_hosts()
  parallel.local_batch_size(config.train.batch_size)
  check_trainable(config)
  encoder_file(config.model)  # A missing one is reported now, not after minutes of preparing data.
  prepare_workdir(workdir, config)
  dataset, store = with_parts(load_dataset(config.data), config)
  if store is not None and jax.process_index() == 0:
    write_parts(workdir, dataset, store)
  with (
    Checkpointer(workdir / "checkpoints", keep=config.checkpoint.keep) as checkpointer,
    Monitor(
      config, workdir, panel_images(dataset, config), TemplateTruth.from_dataset(dataset)
    ) as monitor,
  ):
    loop = EMLoop(
      config=config,
      train_split=dataset.splits["train"],
      checkpointer=checkpointer,
      monitor=monitor,
    )
    train_state, em_state = loop.run()
  evaluation = evaluate_workdir(workdir, split=evaluation_split(dataset), dataset=dataset)
  if jax.process_index() == 0:
    sizes = read_template_sizes(workdir)
    write_report(workdir, config, dataset, evaluation, template_sizes=sizes)
    sys.stderr.write(_summary(workdir, evaluation.report, seconds=time.monotonic() - began))
  return RunResult(train_state, em_state, evaluation.report, read_objectives(workdir))


def discover_parts(config: Config, workdir: pathlib.Path) -> Report:
  """Discovers the parts of a data set, and measures them where its own annotations allow.

  Args:
    config: the data, and how parts are found.
    workdir: where parts/{parts.npz, sheet.png} and parts.json are written.

  Returns:
    What parts.json holds; see `eval.part_quality.part_report`.

  Raises:
    ValueError, OSError: for unusable data or features, or a folder that cannot be written.
  """
  dataset = load_annotated(config.data)
  store = discovered(dataset, config)
  report = part_report(dataset, store, seed=config.train.seed)
  write_parts(workdir, dataset, store)
  write_text(workdir / "parts.json", json.dumps(report, indent=2) + "\n")
  return report


def panel_images(dataset: Dataset, config: Config) -> Batch:
  """The first test images as one batch for the panels; training images where there are none.

  Args:
    dataset: of the run.
    config: of the run; it determines how images are cropped.
  """
  split = dataset.splits[evaluation_split(dataset)]
  batches = evaluation_batches(
    split, CropSpec.from_config(config.data), batch_size=min(_PANEL_IMAGES, len(split))
  )
  return next(itertools.islice(batches, 1))[0]


def prepare_workdir(workdir: pathlib.Path, config: Config) -> None:
  """Makes the work directory, or checks that the run in it is this one.

  Args:
    workdir: of the run.
    config: of the run; written to config.json.

  Raises:
    ValueError: naming every setting in which the run in there differs.
    OSError: if it cannot be made or written.
  """
  settings = to_dict(config)
  path = workdir / "config.json"
  try:
    if path.exists():
      old = json.loads(path.read_text(encoding="utf-8"))
      if not isinstance(old, dict) or not old.keys() <= settings.keys():
        raise ValueError(f"{path} is not the configuration of a run; give another --workdir.")
      # Without a checkpoint there is no run yet, only a try that failed, perhaps at its settings.
      if saved_steps(workdir / "checkpoints") and (lines := differences(old, settings)):
        raise ValueError(
          f"{workdir} holds a run of another configuration:\n  " + "\n  ".join(lines) + "\n"
          "Give another --workdir, or the settings that it was begun with."
        )
      logging.info("%s was begun before; resuming.", workdir)
    if jax.process_index() == 0:
      write_text(path, json.dumps(settings, indent=2) + "\n")
  except json.JSONDecodeError as error:
    raise ValueError(
      f"{path} is not readable as JSON ({error}); give another --workdir."
    ) from error
  except OSError as error:
    raise OSError(
      f"The work directory {workdir} cannot be written: {error.strerror or error}. "
      "Give another --workdir."
    ) from error


def _summary(workdir: pathlib.Path, evaluation: Report, *, seconds: float) -> str:
  """The text that a run prints at its end."""
  written = [
    ("report", workdir / "report.html"),
    ("meshes", workdir / "meshes"),
    ("template", workdir / "rounds"),
    ("panels", workdir / "panels"),
    ("metrics", workdir / "evaluation.json"),
  ]
  lines = [f"\n{format_table(evaluation)}", f"\nThis command took {seconds / 60:.1f} minutes."]
  lines += [f"{name:>9}  {path}" for name, path in written]
  lines.append(
    f"Next: python -m experiments.predict --workdir={workdir} --images=PATH --out=meshes\n"
  )
  return "\n".join(lines)
