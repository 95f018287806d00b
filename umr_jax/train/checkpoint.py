"""Saving a run and resuming it: atomically, with checksums, never a damaged state in silence.

What a checkpoint is, and how one is read, is in `models.checkpoint`.
"""

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Callable

import jax
import orbax.checkpoint as ocp

from umr_jax.config.fields import Settings
from umr_jax.models.checkpoint import (
  CheckpointError,
  Tree,
  em_state_of,
  flat,
  newest_whole,
  quiet_orbax,
  save_arguments,
  saved_steps,
)
from umr_jax.types import EMState, TrainState

# How the restored optimizer state and parameters are nested: a train state whose leaves may be
# abstract, of the checkpoint's EM state and step, because the network of one round may have other
# parameters than that of the next.
Like = Callable[[EMState, int], TrainState]

_TREES = ("params", "batch_stats", "frozen", "discriminator")
_DAMAGED, _REPLACED = ".damaged", ".replaced"


@dataclasses.dataclass(frozen=True, eq=False)
class Restored:
  """A run as it was saved: arrays are NumPy, on the host, not replicated."""

  step: int
  train_state: TrainState
  em_state: EMState
  config: Settings


class Checkpointer:
  """Writes and restores the checkpoints of one run.

  Saving happens in the background; `wait` or `close` (or leaving a `with` block) ends it. A process
  killed while saving leaves the earlier steps as they were.

  Args:
    directory: the folder of the checkpoints, made on first use.
    keep: how many of the newest steps stay on the disk; 2 or more leave something to fall back on.
  """

  def __init__(self, directory: str | os.PathLike[str], *, keep: int):
    if keep < 1:
      raise ValueError(f"checkpoint.keep is {keep}; at least 1 step must be kept")
    quiet_orbax()
    self.directory = pathlib.Path(directory).absolute()
    self.directory.mkdir(parents=True, exist_ok=True)
    _finish_replacements(self.directory)
    self._keep = keep
    self._manager = self._open()

  def __enter__(self) -> "Checkpointer":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def save(self, step: int, train_state: TrainState, em_state: EMState, config: Settings) -> None:
    """Saves one step; a step that exists already is replaced.

    Args:
      step: the number of gradient steps taken.
      train_state: unreplicated, on the host or on one device.
      em_state: likewise.
      config: the run's settings as nested dicts of JSON values.

    Raises:
      CheckpointError: if orbax declines to save.
    """
    step = int(step)
    model = {"step": train_state.step, "em_state": em_state}
    model |= {name: getattr(train_state, name) for name in _TREES}
    arguments = save_arguments(
      step, model=model, optimizer=train_state.opt_state, config=dict(config)
    )
    self.wait()
    existing = self.directory / str(step)
    if existing.exists():
      self._move(existing, _REPLACED)
    if not self._manager.save(step, args=arguments, force=True):
      raise CheckpointError(f"orbax did not save step {step} in {self.directory}")
    if _aside(existing, _REPLACED).exists():
      self.wait()
      _finish_replacements(self.directory)

  def restore_latest(self, like: Like | None = None) -> Restored | None:
    """Restores the newest step that is whole.

    A damaged step newer than that is logged with its reason and renamed to `STEP.damaged`, out of
    the way of the run that now repeats it.

    Args:
      like: the nesting of the train state (see `Like`). Without it the optimizer state, like the
        parameters, comes back as nested dicts.

    Returns:
      The run, or None where nothing was ever saved.

    Raises:
      CheckpointError: if there are checkpoints and every one is damaged: the run is not started
        anew in silence.
      ValueError: if a whole checkpoint does not fit `like`.
    """
    self.wait()
    steps = saved_steps(self.directory)
    if not steps:
      return None
    step, (manifest, trees), damaged = newest_whole(steps, items=("model", "optimizer"))
    for path in damaged:
      self._move(path, _DAMAGED)
    em_state = em_state_of(trees["model"]["em_state"])
    train_state = _train_state(trees["model"], trees["optimizer"])
    if like is not None:
      train_state = _nested_like(like(em_state, step), train_state, where=str(steps[step]))
    return Restored(step, train_state, em_state, manifest["config"])

  def wait(self) -> None:
    """Returns when the save in the background has ended; raises what it raised."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Ends the save in the background and lets go of the folder."""
    self._manager.close()

  def _open(self) -> ocp.CheckpointManager:
    return ocp.CheckpointManager(
      self.directory,
      item_names=("model", "optimizer", "manifest"),
      options=ocp.CheckpointManagerOptions(max_to_keep=self._keep, cleanup_tmp_directories=True),
    )

  def _move(self, path: pathlib.Path, suffix: str) -> None:
    """Takes a step out of the manager's sight, keeping its files."""
    if jax.process_index() == 0:
      shutil.rmtree(_aside(path, suffix), ignore_errors=True)
      path.rename(_aside(path, suffix))
    self._manager.close()
    self._manager = self._open()


def _aside(path: pathlib.Path, suffix: str) -> pathlib.Path:
  return path.with_name(path.name + suffix)


def _finish_replacements(directory: pathlib.Path) -> None:
  """Ends the replacement of a step, in whichever half a process may have died."""
  if jax.process_index() != 0:
    return
  for old in directory.glob(f"*{_REPLACED}"):
    new = old.with_name(old.name.removesuffix(_REPLACED))
    if new.exists():
      shutil.rmtree(old)
    else:
      old.rename(new)


# Between the states and plain nested dicts.


def _train_state(model: Tree, optimizer: Tree) -> TrainState:
  return TrainState(
    step=model["step"],
    params=model["params"],
    batch_stats=model.get("batch_stats", {}),
    frozen=model.get("frozen", {}),
    opt_state=optimizer,
    discriminator=model.get("discriminator", {}),
  )


def _nested_like(template: TrainState, found: TrainState, *, where: str) -> TrainState:
  """The leaves of `found` in the nesting of `template`, in which they must fit exactly."""
  leaves, expected = flat(found), flat(template)
  problems = [f"{name} is not in the checkpoint" for name in expected.keys() - leaves.keys()]
  problems += [f"{name} is not in the model" for name in leaves.keys() - expected.keys()]
  for name in expected.keys() & leaves.keys():
    want, have = expected[name], leaves[name]
    if (tuple(want.shape), want.dtype) != (have.shape, have.dtype):
      problems.append(
        f"{name} is {have.dtype}{list(have.shape)}, the model's is {want.dtype}{list(want.shape)}"
      )
  if problems:
    raise ValueError(
      f"{where} does not fit the model ({len(problems)} arrays): {min(problems)}; restore it with "
      "the config that it was trained with"
    )
  return jax.tree.unflatten(jax.tree.structure(template), [leaves[name] for name in expected])
