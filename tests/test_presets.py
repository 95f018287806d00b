"""Every preset is a configuration that can run, and says how to run it."""

import importlib

import pytest

from experiments import launch
from umr_jax.config import from_dict
from umr_jax.models.infer import build_net, build_topology_from


@pytest.mark.parametrize("name", launch.preset_names())
def test_a_preset_is_valid_and_documented(name):
  module = importlib.import_module(f"experiments.configs.{name}")
  settings = module.get_config().to_dict()
  if settings["data"]["source"] == "folder":
    settings["data"]["folder"] = settings["data"]["folder"] or "the user's"
  config = from_dict(settings)
  assert build_topology_from(config).num_faces == 20 * 4**config.geometry.level
  for index in range(config.em.rounds):
    assert build_net(config, hypotheses=config.hypotheses(index)).hypotheses >= 1
  assert module.__doc__ is not None
  for heading in (
    "What:",
    "Hardware and time:",
    "Expected:",
    "Command: python -m experiments.train",
  ):
    assert heading in module.__doc__
  assert name == launch.DEFAULT_PRESET or f"--config={name}" in module.__doc__


def test_with_parts_training_is_shorter_than_without():
  """Both measured; `folder` and `horses`, from which `parts` comes, need four times the steps."""
  folder, parts = (
    launch.config_of(name, ["data.folder=DIR"]).train.steps for name in ("folder", "parts")
  )
  assert (folder, parts) == (12_000, 3000)
