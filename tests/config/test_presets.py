"""Every preset is a configuration that can run, and says how to run it."""

import importlib

import pytest

from experiments import launch
from umr_jax.config.settings import changes, from_dict, to_dict
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


@pytest.mark.parametrize("size", [128, 256])
def test_best_at_another_size_is_best_in_all_else(size):
  assert changes(*(to_dict(launch.config_of(n, [])) for n in ("best", f"best_{size}"))) == {
    "data.image_size": (96, size),
    "render.image_size": (48, 64),
  }


def test_paper_has_the_published_weights_of_both_rounds():
  config = launch.config_of("paper", ["data.folder=DIR"])
  first, second = (config.at_round(index).loss for index in (0, 1))
  names = ("mask", "flatten", "deformation", "texture_cycle")
  assert [getattr(first, name) for name in names] == [3.0, 4e-4, 5.0, 0.5]
  assert [getattr(second, name) for name in names] == [2.5, 5e-4, 1.0, 1.0]
  assert [config.hypotheses(index) for index in (0, 1)] == [1, 8]
  assert config.loss.texture_cameras == "all" and config.loss.texture == 3.0
  # The rate halves every 2000 steps.
  train = config.train
  assert (train.learning_rate, train.schedule, train.halving_steps) == (1e-4, "halving", 2000)


def test_with_parts_training_is_shorter_than_without():
  """Both measured; `folder` and `horses`, from which `parts` comes, need four times the steps."""
  folder, parts = (
    launch.config_of(name, ["data.folder=DIR"]).train.steps for name in ("folder", "parts")
  )
  assert (folder, parts) == (12_000, 3000)
