"""A checkpoint on the disk, and reading what prediction needs of it.

A checkpoint is one folder per step, written by orbax, with three items: `model` (parameters, batch
statistics, frozen weights, the EM state: all that prediction needs), `optimizer`, and `manifest`, a
JSON with the run's config, the versions that wrote it, and the shape, dtype and CRC-32 of every
array. Orbax itself notices a missing file but restores a flipped bit without a word: the checksums
are what distinguishes them.
"""

import dataclasses
import json
import logging as python_logging
import os
import pathlib
import zlib
from collections.abc import Mapping
from importlib import metadata
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from flax import traverse_util

import umr_jax
from umr_jax.config.fields import Settings
from umr_jax.models.frozen import COLLECTION, WEIGHTS
from umr_jax.types import CanonicalFeatures, EMState, Projection, Template, ViewTemplate, host

Tree = dict[str, Any]

# 1 kept the frozen weights among the batch statistics.
FORMAT, READABLE = 2, (1, 2)
# The fields of the EM state that hold a projection.
_WITH_PROJECTION = {"view_template": ViewTemplate, "canonical_features": CanonicalFeatures}


class CheckpointError(OSError):
  """No checkpoint can be read; the message names those found and what is wrong with each."""


class Snapshot(NamedTuple):
  """What prediction needs of a checkpoint; trees are nested dicts of NumPy arrays."""

  config: Settings
  params: Tree
  batch_stats: Tree
  frozen: Tree
  em_state: EMState
  step: int


def save_arguments(
  step: int, *, model: object, optimizer: object, config: Settings
) -> ocp.args.Composite:
  """What orbax is to write of one step: two items of host arrays, and the manifest of both.

  Args:
    step: the number of gradient steps taken.
    model: a pytree of everything that prediction needs.
    optimizer: a pytree of the rest; it may have no leaves.
    config: the run's settings as nested dicts of JSON values.
  """
  trees = {"model": nested(host(model)), "optimizer": nested(host(optimizer))}
  manifest = {
    "format": FORMAT,
    "step": step,
    "config": json.loads(json.dumps(config)),
    "versions": _versions(),
    "leaves": _leaf_records(trees),
  }
  manifest["crc32"] = _json_crc(manifest)
  # Orbax refuses an item without arrays.
  items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items() if tree}
  return ocp.args.Composite(manifest=ocp.args.JsonSave(manifest), **items)


def read_checkpoint(path: str | os.PathLike[str]) -> Snapshot:
  """Reads what prediction needs from the newest whole step, changing nothing on the disk.

  Args:
    path: a work directory, its `checkpoints` folder, or one step's folder in that.

  Raises:
    FileNotFoundError: if there is no checkpoint at `path`.
    CheckpointError: if there are, and every one is damaged.
  """
  quiet_orbax()
  folder = pathlib.Path(path).expanduser().absolute()
  if (folder / "manifest").is_dir():
    steps = {int(folder.name) if folder.name.isdigit() else 0: folder}
  else:
    steps = saved_steps(folder / "checkpoints") or saved_steps(folder)
  if not steps:
    raise FileNotFoundError(
      f"no checkpoint at {folder}: expected a work directory that holds checkpoints/STEP, or one "
      "of these folders; train one with `python -m experiments.train --workdir=DIR`"
    )
  _, (manifest, trees), _ = newest_whole(steps, items=("model",))
  model = trees["model"]
  return Snapshot(
    config=manifest["config"],
    params=model["params"],
    batch_stats=model.get("batch_stats", {}),
    frozen=model.get("frozen", {}),
    em_state=em_state_of(model["em_state"]),
    step=manifest["step"],
  )


def saved_steps(directory: pathlib.Path) -> dict[int, pathlib.Path]:
  """The finished steps of a folder, oldest first."""
  if not directory.is_dir():
    return {}
  found = [p for p in directory.iterdir() if p.name.isdigit() and p.is_dir()]
  return {int(p.name): p for p in sorted(found, key=lambda p: int(p.name))}


def newest_whole(
  steps: Mapping[int, pathlib.Path], *, items: tuple[str, ...]
) -> tuple[int, tuple[Tree, dict[str, Tree]], list[pathlib.Path]]:
  """The newest step that passes every check, its content, and the damaged ones passed over.

  Args:
    steps: folders by step.
    items: of each step, what is read beside the manifest.
  """
  reasons: dict[pathlib.Path, str] = {}
  for step in sorted(steps, reverse=True):
    try:
      content = read_step(steps[step], items)
    # Orbax and tensorstore raise bare Exceptions for damaged files.
    except Exception as error:
      reasons[steps[step]] = _one_line(error)
      continue
    for path, reason in reasons.items():
      logging.warning("Checkpoint %s is damaged (%s); falling back to step %d.", path, reason, step)
    return step, content, list(reasons)
  listing = "\n".join(f"  {path}: {reason}" for path, reason in reasons.items())
  raise CheckpointError(
    f"every checkpoint found is damaged:\n{listing}\n"
    "Restore these folders from a copy, or delete them to start the run anew."
  )


def _one_line(error: Exception) -> str:
  text = " ".join(str(error).split())
  return f"{type(error).__name__}: {text[:300]}"


def em_state_of(tree: Tree) -> EMState:
  """The EM state of a checkpoint's nested dicts."""
  # A field that was None was not written.
  fields: Tree = {field.name: tree.get(field.name) for field in dataclasses.fields(EMState)}
  # Its name before the rooms were.
  fields["target_cameras"] = tree.get("target_cameras", tree.get("camera_bank"))
  fields["template"] = Template(**tree["template"])
  for name, kind in _WITH_PROJECTION.items():
    if (found := fields[name]) is not None:
      fields[name] = kind(**(found | {"projection": Projection(**found["projection"])}))
  return EMState(**fields)


def read_step(path: pathlib.Path, items: tuple[str, ...]) -> tuple[Tree, dict[str, Tree]]:
  """Reads the manifest and the named items of one step's folder.

  Args:
    path: of the step.
    items: what is read beside the manifest.

  Raises:
    Exception: of whatever kind, on any damage: orbax and tensorstore raise bare ones.
  """
  if not any(path.iterdir()):
    raise CheckpointError("the folder is empty")
  with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
    manifest = reader.restore(path / "manifest", args=ocp.args.JsonRestore())
  recorded_crc = manifest.pop("crc32", None)
  if recorded_crc != _json_crc(manifest):
    raise CheckpointError("the manifest does not match its checksum")
  if manifest["format"] not in READABLE:
    raise CheckpointError(
      f"format {manifest['format']}, written by {manifest['versions']}; this version reads "
      f"{' and '.join(map(str, READABLE))}"
    )
  trees: dict[str, Tree] = {}
  for item in items:
    expected = {k: v for k, v in manifest["leaves"].items() if k.startswith(f"{item}/")}
    trees[item] = {}
    if expected:
      with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        trees[item] = host(reader.restore(path / item, args=ocp.args.StandardRestore()))
    _verify(_leaf_records({item: trees[item]}), expected)
  if manifest["format"] == 1 and "model" in trees:
    trees["model"] = _frozen_apart(trees["model"])
  return manifest, trees


def _frozen_apart(model: Tree) -> Tree:
  """A model of format 1 with its frozen weights in a collection of their own."""
  collections: dict[str, dict[tuple[str, ...], Any]] = {"batch_stats": {}, COLLECTION: {}}
  for path, leaf in traverse_util.flatten_dict(model.get("batch_stats", {})).items():
    collections[COLLECTION if WEIGHTS in path else "batch_stats"][path] = leaf
  return model | {name: traverse_util.unflatten_dict(tree) for name, tree in collections.items()}


def _verify(found: Mapping[str, Tree], expected: Mapping[str, Tree]) -> None:
  if missing := sorted(set(expected) ^ set(found)):
    raise CheckpointError(f"{len(missing)} arrays are missing or unknown, first {missing[0]}")
  wrong = [name for name in sorted(expected) if found[name] != expected[name]]
  if wrong:
    raise CheckpointError(
      f"{len(wrong)} of {len(expected)} arrays do not match their checksum, first {wrong[0]}: "
      f"found {found[wrong[0]]}, saved {expected[wrong[0]]}"
    )


def flat(tree: object) -> dict[str, np.ndarray]:
  """The leaves of a pytree by their paths, as `params/encoder/kernel`."""

  def name(key: Any) -> str:
    return str(next(getattr(key, a) for a in ("key", "name", "idx") if hasattr(key, a)))

  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {"/".join(name(key) for key in path): leaf for path, leaf in leaves}


def nested(tree: object) -> Tree:
  """Any pytree as nested dicts, named as in its paths; what is empty is left out."""
  result: Tree = {}
  for name, leaf in flat(tree).items():
    *folders, last = name.split("/")
    node = result
    for folder in folders:
      node = node.setdefault(folder, {})
    node[last] = leaf
  return result


def _leaf_records(tree: Any) -> dict[str, Tree]:
  return {
    name: {
      "crc32": zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data),
      "shape": list(np.shape(leaf)),
      "dtype": str(leaf.dtype),
    }
    for name, leaf in flat(tree).items()
  }


def _json_crc(value: Any) -> int:
  return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def _versions() -> dict[str, str]:
  names = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")
  return {name: metadata.version(name) for name in names} | {"umr-jax": umr_jax.__version__}


class _OrbaxFilter(python_logging.Filter):
  """Drops what orbax logs below the level of an error: progress, and warnings that mean nothing."""

  def filter(self, record: python_logging.LogRecord) -> bool:
    orbax = f"{os.sep}orbax{os.sep}" in record.pathname
    return record.levelno >= python_logging.ERROR or not orbax


def quiet_orbax() -> None:
  """Keeps orbax out of the log unless something is wrong."""
  logger = logging.get_absl_logger()
  if not any(isinstance(item, _OrbaxFilter) for item in logger.filters):
    logger.addFilter(_OrbaxFilter())
