"""Every preset is a configuration that can run, says how to run it, and is what it was."""

import json
import pathlib

import pytest

from umr_jax.config.build import from_dict, with_settings
from umr_jax.config.extensions import EXTENSIONS
from umr_jax.config.history import is_ineffective
from umr_jax.config.preset_docs import DOCS
from umr_jax.config.presets import (
  _FORMER,
  DEFAULT_PRESET,
  PRESETS,
  config_file,
  config_of,
  preset_doc,
  preset_names,
  preset_settings,
)
from umr_jax.config.settings import Config, flatten, to_dict
from umr_jax.errors import UsageError
from umr_jax.models.infer import build_net, build_topology_from

# The values with which the results in BUILD_NOTES.md and experiments/results were made.
MEASURED = json.loads(pathlib.Path(__file__).with_name("presets.json").read_text())


def usable(name):
  """The configuration of a preset, with a folder where that is the user's to name."""
  settings = preset_settings(name)
  if settings["data"]["source"] == "folder":
    settings["data"]["folder"] = settings["data"]["folder"] or "the user's"
  return from_dict(settings)


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_valid_and_documented(name):
  config = usable(name)
  assert build_topology_from(config).num_faces == 20 * 4**config.geometry.level
  for index in range(config.em.rounds):
    assert build_net(config, hypotheses=config.hypotheses(index)).hypotheses >= 1
  doc = preset_doc(name)
  for heading in ("What:", "Hardware and time:", "Expected:", "Command: python -m experiments."):
    assert heading in doc
  assert name == DEFAULT_PRESET or f"--config={name.partition(':')[0]}" in doc
  if "not run by this project" in doc:
    assert "never run to its end" in doc.splitlines()[0]


def test_there_are_six_families():
  assert list(PRESETS) == ["default", "quickstart", "best", "planes", "paper", "released"]
  assert PRESETS.keys() == DOCS.keys()


@pytest.mark.parametrize("name", MEASURED)
def test_a_preset_that_was_measured_is_what_it_was(name):
  was, now = MEASURED[name], json.loads(json.dumps(flatten(preset_settings(name))))
  assert was.keys() == now.keys()
  # But for what nothing reads, as presets of before set some of it.
  differing = {setting for setting in now if was[setting] != now[setting]}
  assert {s for s in differing if not (is_ineffective(s, was) and is_ineffective(s, now))} == set()


@pytest.mark.parametrize("name", ["best", "quickstart"])
def test_a_preset_is_the_paper_its_extensions_and_what_its_data_ask_for(name):
  merged = {}
  for extension in PRESETS[name].extensions:
    merged |= EXTENSIONS[extension].settings
  assert with_settings(Config(), merged | dict(PRESETS[name].settings)) == config_of(name, [])


def test_the_paper_is_the_default_configuration_on_a_folder():
  changed = {"data.source": "folder", "data.folder": "DIR", "data.part_count": 4}
  assert config_of("paper", ["data.folder=DIR"]) == with_settings(Config(), changed)
  assert config_of("paper:car", []).data.part_count == 6


def test_every_extension_differs_from_the_paper_and_is_in_a_preset():
  paper = flatten(to_dict(Config()))
  used = {extension for preset in PRESETS.values() for extension in preset.extensions}
  assert used == EXTENSIONS.keys()
  for name, extension in EXTENSIONS.items():
    assert any(paper[setting] != value for setting, value in extension.settings.items()), name
    assert extension.replaces and extension.brought.endswith(".")


def test_what_a_preset_names_has_an_effect():
  """An extension of which nothing is left beside the later ones should not be named."""
  for preset in PRESETS.values():
    merged = {}
    for extension in preset.extensions:
      merged |= EXTENSIONS[extension].settings
    merged |= preset.settings
    final = flatten(to_dict(Config())) | merged
    for name in preset.extensions:
      settings = EXTENSIONS[name].settings
      kept = {s for s in settings if merged[s] == settings[s] and not is_ineffective(s, final)}
      assert kept, name
    assert not [setting for setting in merged if is_ineffective(setting, final)]


@pytest.mark.parametrize("former", _FORMER)
def test_a_preset_of_before_is_refused_with_its_new_name(former):
  with pytest.raises(UsageError, match=f"--config={former} has another name") as refusal:
    config_file(former)
  assert f"--config={_FORMER[former]} " in str(refusal.value)
  new, *flags = _FORMER[former].split(" --config.")
  changes = [flag for flag in flags if flag != "data.folder=DIR"]
  config_of(
    new, changes if ":" in new or new in ("best", "planes") else ["data.folder=DIR", *changes]
  )


def test_a_preset_or_a_file_but_nothing_else_is_a_config(tmp_path):
  assert config_file("paper:cub").endswith("preset_file.py:paper:cub")
  mine = tmp_path / "mine.py"
  mine.write_text("")
  assert config_file(str(mine)) == str(mine)
  for name in ("nothing", "best:cub", "paper:dog"):
    with pytest.raises(UsageError, match="neither a file nor a preset"):
      config_file(name)
