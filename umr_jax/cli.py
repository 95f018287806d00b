"""The console script: `umr-jax train`, `evaluate`, `predict`, `parts` and `improve`.

`python -m experiments.NAME` in a clone is the same command with the same flags.
"""

import dataclasses
import inspect
import json
import pathlib
import sys
from collections.abc import Callable

from absl import flags

from umr_jax.errors import UsageError
from umr_jax.launch import EXIT_USAGE, config_name, define_config, given_config, launch
from umr_jax.types import Report


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
  """A program: what defines its flags, and what reads them, runs and returns the result."""

  define: Callable[[], None]
  main: Callable[[], Report]

  @property
  def doc(self) -> str:
    """Its --help."""
    return inspect.getdoc(self.main) or ""


def _path(name: str, otherwise: str | pathlib.Path | None = None) -> pathlib.Path:
  """The value of a flag as a path, or of none, what stands in its place."""
  value = flags.FLAGS[name].value or otherwise
  if not value:
    raise UsageError(f"--{name} is missing")
  return pathlib.Path(value)


def _define_train() -> None:
  define_config()
  flags.DEFINE_string("workdir", "", "Where the run lives; default runs/<config name>.")


def _train() -> Report:
  """Learns a category from images and silhouettes: parts, rounds, evaluation, report.

    umr-jax train                                             # the embedded category
    umr-jax train --config=default --config.data.folder=DIR --workdir=runs/mine

  The same command resumes an interrupted run.
  """
  from umr_jax.em.run import run

  return run(given_config(), _path("workdir", f"runs/{config_name()}")).evaluation


def _define_parts() -> None:
  define_config()
  flags.DEFINE_string("workdir", "", "Default runs/parts-<config name>.")


def _parts() -> Report:
  """Finds parts that all images of a category share, without labels; train does it by itself.

    umr-jax parts --config=default --config.data.folder=DIR --workdir=runs/parts

  Writes into the work directory the figure parts/sheet.png, parts/parts.npz, which a training
  reads with --config.data.parts=file --config.data.part_file=..., and parts.json, the measures that
  the data allow. The parts also stay in data.cache, where a training with the same settings finds
  them.
  """
  from umr_jax.em.run import discover_parts

  workdir = _path("workdir", f"runs/parts-{config_name()}")
  config = given_config()
  config = dataclasses.replace(config, data=dataclasses.replace(config.data, parts="discovered"))
  report = discover_parts(config, workdir)
  sys.stderr.write(json.dumps(report, indent=2) + f"\nFigure: {workdir / 'parts' / 'sheet.png'}\n")
  return report


def _define_improve() -> None:
  flags.DEFINE_string("workdir", "", "A finished run whose parts were discovered.")
  flags.DEFINE_string("out", "", "Where the turns go; default WORKDIR/improved.")
  flags.DEFINE_integer("turns", 1, "How often parts are learned anew.", lower_bound=1)
  flags.DEFINE_bool(
    "replace_given", False, "Also replace parts that are the data's own or were made of keypoints."
  )


def _improve() -> Report:
  """Learns parts anew from a run's reconstructions, and reconstruction anew from these parts.

    umr-jax improve --workdir=runs/mine --turns=1

  The run's parts were discovered, as with --config=default. Those that the data have, or that were
  made of keypoints, are replaced with --replace_given alone.

  Turn T leaves WORKDIR/improved/T: parts/improvement.png (images, parts before, as
  reconstructed and after), and a whole run. Finished turns are not done again. improvement.json
  compares them.
  """
  from umr_jax.em.improve_parts import improve
  from umr_jax.eval.summary import format_rows

  if not flags.FLAGS.workdir:
    raise UsageError("--workdir is missing: name a finished run, such as runs/mine")
  workdir = _path("workdir")
  out, turns = _path("out", workdir / "improved"), flags.FLAGS.turns
  reports = improve(workdir, out, turns=turns, replace_given=flags.FLAGS.replace_given)
  sys.stderr.write("\n" + format_rows(reports) + "\n")
  return reports


def _define_refine_steps() -> None:
  flags.DEFINE_integer(
    "refine_steps", None, "Other steps of test-time optimisation; 0: the network alone.", 0
  )


def _define_evaluate() -> None:
  flags.DEFINE_string("workdir", "runs/quickstart", "The run to evaluate.")
  flags.DEFINE_enum("split", "test", ["test", "train"], "Which images to evaluate on.")
  flags.DEFINE_bool("references", False, "Also measure what needs no learning.")
  _define_refine_steps()


def _evaluate() -> Report:
  """Every metric that a run's data allows, on one split, into evaluation.json.

    umr-jax evaluate --workdir=runs/quickstart --split=test
    umr-jax evaluate --workdir=runs/planes --references

  With --references also the numbers that need no learning, into references.json: the best constant
  mask, and with true cameras and meshes the sphere, the medoid training shape, and the truth.
  """
  from umr_jax.eval.summary import format_rows, format_table
  from umr_jax.eval.workdir import evaluate_workdir, references_workdir

  workdir, split = _path("workdir"), flags.FLAGS.split
  evaluation = evaluate_workdir(workdir, split=split, refine_steps=flags.FLAGS.refine_steps).report
  sys.stderr.write(format_table(evaluation) + "\n")
  if flags.FLAGS.references:
    rows = references_workdir(workdir, split=split)
    sys.stderr.write("\n" + format_rows({**rows, "this run": evaluation}) + "\n")
  return evaluation


def _define_predict() -> None:
  flags.DEFINE_string("workdir", "runs/quickstart", "The run, or a checkpoint folder.")
  flags.DEFINE_string("images", "", "A photograph, or a folder of photographs.")
  flags.DEFINE_string("out", "meshes", "The folder for the results.")
  flags.DEFINE_string("masks", "", "A mask, or a folder of them; default: alpha, or all of it.")
  flags.DEFINE_integer("batch_size", 8, "Photographs at a time.", lower_bound=1)
  _define_refine_steps()


def _predict() -> Report:
  """Photographs to textured meshes, with a trained run.

    umr-jax predict --workdir=runs/quickstart --images=photos --out=meshes

  --images is a file or a folder; masks, if given, are files of the photographs' names. OUT gets,
  for each photograph, NAME.glb, NAME.json (cameras and crop) and NAME.png, and an index.html.
  """
  if not flags.FLAGS.images:
    raise UsageError("--images is missing: give a photograph, or a folder of photographs")
  from umr_jax.viz.gallery import predict_folder

  return predict_folder(
    _path("workdir"),
    _path("images"),
    _path("out"),
    masks=_path("masks") if flags.FLAGS.masks else None,
    batch_size=flags.FLAGS.batch_size,
    refine_steps=flags.FLAGS.refine_steps,
  )


COMMANDS = {
  "train": Command(define=_define_train, main=_train),
  "evaluate": Command(define=_define_evaluate, main=_evaluate),
  "predict": Command(define=_define_predict, main=_predict),
  "parts": Command(define=_define_parts, main=_parts),
  "improve": Command(define=_define_improve, main=_improve),
}


def run_command(name: str) -> None:
  """Runs a command with the flags of this process, and exits."""
  command, before = COMMANDS[name], set(flags.FLAGS)
  command.define()
  # `--config.GROUP.NAME` are flags, too, which --help would list by the dozen.
  program_flags = sorted(flag for flag in set(flags.FLAGS) - before if "." not in flag)
  launch(command.main, doc=command.doc, program_flags=program_flags)


def main() -> None:
  """The console script: its first argument names the command."""
  program, *words = [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]
  if words and words[0] in COMMANDS:
    sys.argv[:] = [f"{program} {words[0]}", *words[1:]]
    run_command(words[0])
  listed = "\n".join(f"  {name:9} {c.doc.splitlines()[0]}" for name, c in COMMANDS.items())
  text = f"usage: {program} COMMAND [--help] [--FLAG=VALUE ...]\n\n{listed}\n"
  if words and words[0] in ("--help", "-help", "-h"):
    sys.stdout.write(text)
    sys.exit(0)
  found = f"{words[0]!r} is not a command" if words else "a command is missing"
  sys.stderr.write(f"error: {found}\n{text}")
  sys.exit(EXIT_USAGE)


if __name__ == "__main__":
  main()
