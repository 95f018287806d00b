"""The config file that `--config=NAME` stands for."""

import ml_collections

from umr_jax.config.presets import preset_settings


def get_config(name: str) -> ml_collections.ConfigDict:
  """A preset's settings, which flags may change."""
  return ml_collections.ConfigDict(preset_settings(name))
