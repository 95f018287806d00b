"""The data set that a run learns from, with part maps: its own, from a file, or discovered here."""

import dataclasses
import hashlib
import json
import time

import jax
from absl import logging

from umr_jax.config.settings import Config
from umr_jax.data.dataset import Dataset
from umr_jax.data.part_store import PartStore, read_store, with_part_maps, write_store
from umr_jax.data.sources import expand_path
from umr_jax.parts import encoder_features
from umr_jax.parts.discover import discover
from umr_jax.parts.features import features_fingerprint, resolve_features
from umr_jax.parts.fit import net_weight_file
from umr_jax.train import parallel

# Raise it whenever the same settings would find other parts.
_VERSION = 4
# What discovery depends on besides its settings.
_CONSTANTS = (
  "image_size",
  "feature_size",
  "encoder_steps",
  "net_width",
  "batch_size",
  "learning_rate",
  "seed",
)
# Where data.part_count leaves it open; the paper's number for all but cars.
DEFAULT_PARTS = 4


def with_parts(dataset: Dataset, config: Config) -> tuple[Dataset, PartStore | None]:
  """Gives the training images the part maps that the config asks for.

  Args:
    dataset: from `load_dataset(config.data)`.
    config: of the run.

  Returns:
    The data set, and the store of its part maps where they are not the data set's own.

  Raises:
    ValueError, FileNotFoundError: for a file without part maps of this data set; and see
      `discover.discover`.
  """
  if not config.semantic:
    return dataset, None
  if config.data.parts == "file":
    store = read_store(expand_path(config.data.part_file, "data.part_file"))
  elif config.data.parts == "discovered" or (
    config.data.parts == "given" and not dataset.part_names
  ):
    store = discovered(dataset, config)
  else:
    return dataset, None
  return with_part_maps(dataset, store), store


def part_count(config: Config) -> int:
  """P of parts that are discovered."""
  return config.data.part_count or DEFAULT_PARTS


def discovered(dataset: Dataset, config: Config) -> PartStore:
  """The parts of a data set, discovered, or read where they were discovered before.

  They lie in `data.cache`, in a file that is named by all that they depend on. Of several hosts the
  first one discovers; the others read its file, or find the same where they have no access to it.

  Args:
    dataset: images and silhouettes.
    config: of the run.
  """
  name = f"parts-{_fingerprint(dataset, config)}.npz"
  path = expand_path(config.data.cache, "data.cache") / name
  if jax.process_index() > 0:
    parallel.wait_for_hosts("parts")
  try:
    store = read_store(path)
    logging.info("The parts of %s were discovered before: %s", dataset.name, path)
  except FileNotFoundError:
    store = _discover(dataset, config)
    write_store(path, store)
  except ValueError as error:
    logging.warning("discovering the parts of %s again: %s", dataset.name, error)
    store = _discover(dataset, config)
    write_store(path, store)
  if jax.process_index() == 0:
    parallel.wait_for_hosts("parts")
  return store


def _fingerprint(dataset: Dataset, config: Config) -> str:
  """Differs where the discovered parts would.

  Raises:
    FileNotFoundError, ValueError: for weights that are needed and not there.
  """
  parts = dataclasses.asdict(config.parts) | config.parts.weights._asdict()
  parts |= {name: getattr(config.parts, name) for name in _CONSTANTS}
  # Of files the content counts.
  for name in ("feature_file", "net_weights"):
    del parts[name]
  settings = {
    "version": _VERSION,
    "dataset": dataset.fingerprint,
    "parts": parts,
    "count": part_count(config),
    "padding": config.data.padding,
  }
  if config.parts.method in ("cosegment", "scops"):
    settings["features"] = features_fingerprint(
      config.parts.features, file=config.parts.feature_file, size=config.parts.feature_size
    )
    if resolve_features(config.parts.features) == "encoder":
      settings["encoder"] = encoder_features.VERSION
    file = net_weight_file(config.parts) if config.parts.steps else None
    if file is not None:
      settings["net_weights"] = hashlib.sha256(file.read_bytes()).hexdigest()
  return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _discover(dataset: Dataset, config: Config) -> PartStore:
  began = time.monotonic()
  logging.info("Discovering %d parts of %s.", part_count(config), dataset.name)

  def record(step: int, losses: dict[str, float]) -> None:
    listed = ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
    logging.log_every_n_seconds(logging.INFO, "parts, step %d: %s", 10, step, listed)

  store = discover(
    dataset,
    config.parts,
    num_parts=part_count(config),
    padding=config.data.padding,
    record=record,
  )
  logging.info("Discovered them in %.0f s.", time.monotonic() - began)
  return store
