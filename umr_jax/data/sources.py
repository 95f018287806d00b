"""From the settings to the builder of a data set: the one list of what can be trained on."""

import os
import pathlib
import re
from collections.abc import Callable

from umr_jax.config.settings import DataConfig
from umr_jax.data.cub import cub_builder
from umr_jax.data.example import Builder
from umr_jax.data.folder import FolderBuilder
from umr_jax.data.imagenet import imagenet_builder
from umr_jax.data.openimages import openimages_builder
from umr_jax.data.pascal3d import pascal3d_builder
from umr_jax.data.synthetic import SyntheticBuilder
from umr_jax.data.tfds_sets import tfds_builder

# Of an image this much is kept around the object, as a share of its longer side: room for other
# crops than the one that is trained on.
_MARGIN = 0.25


def make_builder(config: DataConfig) -> Builder:
  """The builder of the data set that the settings name.

  Args:
    config: the source and its settings.

  Raises:
    ValueError: for an unknown source, a setting that it lacks, or files without anything usable.
    FileNotFoundError: when files are missing, saying which, and where they come from.
  """
  if config.source not in _BUILDERS:
    expected = ", ".join(repr(name) for name in _BUILDERS)
    raise ValueError(f"data.source is {config.source!r}, expected one of {expected}")
  return _BUILDERS[config.source](config)


def expand_path(path: str, setting: str) -> pathlib.Path:
  """A path of the config with ~ and environment variables filled in.

  Args:
    path: as the user gave it.
    setting: the setting's name, for the error.

  Raises:
    ValueError: when a variable in it is not set.
  """
  for braced, bare in re.findall(r"\$(?:\{(\w+)\}|(\w+))", path):
    if (variable := braced or bare) not in os.environ:
      raise ValueError(
        f"{setting} is {path!r}, but the environment variable {variable} is not set; "
        "set it, or give the path itself"
      )
  return pathlib.Path(os.path.expandvars(path)).expanduser()


def _synthetic(config: DataConfig) -> Builder:
  return SyntheticBuilder(
    seed=config.synthetic_seed,
    train_images=config.train_images,
    test_images=config.test_images,
  )


def _folder(config: DataConfig) -> Builder:
  return FolderBuilder(
    _root(config),
    test_fraction=config.test_fraction,
    split_seed=config.split_seed,
    margin=_margin(config),
  )


def _cub(config: DataConfig) -> Builder:
  annotations = None
  if config.cub_annotations:
    annotations = expand_path(config.cub_annotations, "data.cub_annotations")
  train, test = config.cub_keypoints
  return cub_builder(
    _root(config),
    annotations=annotations,
    min_keypoints_train=train,
    min_keypoints_test=test,
    margin=_margin(config),
    download=config.download,
  )


def _pascal3d(config: DataConfig) -> Builder:
  return pascal3d_builder(
    _root(config), category=config.category, margin=_margin(config), download=config.download
  )


def _imagenet(config: DataConfig) -> Builder:
  return imagenet_builder(
    _root(config),
    category=config.category,
    test_fraction=config.test_fraction,
    split_seed=config.split_seed,
    margin=_margin(config),
  )


def _openimages(config: DataConfig) -> Builder:
  return openimages_builder(
    _root(config), category=config.category, margin=_margin(config), download=config.download
  )


def _tfds(config: DataConfig) -> Builder:
  folder = str(expand_path(config.folder, "data.folder")) if config.folder else ""
  return tfds_builder(
    config.tfds_name,
    data_dir=folder,
    category=config.category,
    margin=_margin(config),
    test_fraction=config.test_fraction,
    split_seed=config.split_seed,
  )


_BUILDERS: dict[str, Callable[[DataConfig], Builder]] = {
  "synthetic": _synthetic,
  "folder": _folder,
  "cub": _cub,
  "pascal3d": _pascal3d,
  "imagenet": _imagenet,
  "openimages": _openimages,
  "tfds": _tfds,
}


def _root(config: DataConfig) -> pathlib.Path:
  if not config.folder:
    raise ValueError(f"data.source is {config.source!r}, but data.folder is empty: name the folder")
  return expand_path(config.folder, "data.folder")


def _margin(config: DataConfig) -> float:
  return max(_MARGIN, config.padding + config.jitter)
