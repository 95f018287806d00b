"""Every setting is declared once, and `Config()` is the paper."""

import dataclasses
import json

import pytest

from umr_jax.config.build import differences, from_dict
from umr_jax.config.extensions import EXTENSIONS
from umr_jax.config.fields import declarations
from umr_jax.config.presets import PRESETS, preset_settings
from umr_jax.config.settings import Config, EMConfig, TrainConfig, flatten, to_dict

# Numbers of any sign.
SIGNED = {"loss.camera_entropy"}


def declared():
  """(group.name, default, declaration) of every setting."""
  for group in dataclasses.fields(Config):
    default = getattr(Config(), group.name)
    for name, declaration in declarations(default).items():
      yield f"{group.name}.{name}", getattr(default, name), declaration


def test_every_setting_is_declared_with_its_help_and_its_range():
  found = {name: (default, declaration) for name, default, declaration in declared()}
  assert found.keys() == flatten(to_dict(Config())).keys()
  for name, (default, declaration) in found.items():
    assert declaration.help.endswith("."), name
    number = isinstance(default, (int, float)) and not isinstance(default, bool)
    # A typo in an exponent is the commonest wrong setting.
    assert not number or name in SIGNED or declaration.low is not None, name
    if not number:
      assert declaration.low is None and declaration.high is None, name
    assert not declaration.choices or default in declaration.choices, name


def test_there_are_at_most_ninety_settings():
  assert len(list(declared())) <= 90


def test_the_default_is_the_paper():
  config = Config()
  first, second = (config.at_round(index).loss for index in (0, 1))
  names = ("mask", "flatten", "deformation", "texture_cycle")
  assert [getattr(first, name) for name in names] == [3.0, 4e-4, 5.0, 0.5]
  assert [getattr(second, name) for name in names] == [2.5, 5e-4, 1.0, 1.0]
  assert [config.hypotheses(index) for index in (0, 1)] == [1, 8]
  assert config.loss.texture_cameras == "all" and config.loss.edge > 0.0
  assert (config.loss.part_probability, config.loss.part_vertices) == (5.0, 10.0)
  assert config.loss.adversary == 1.0 and config.render.antialias == 2
  # Each round is an E-step and then one M-step.
  assert (config.em.rounds, config.em.template_every, config.em.parts_every) == (2, 0, 0)
  assert (config.train.learning_rate, config.train.schedule) == (1e-4, "inverse")
  assert not config.refine.steps and not config.loss.target_camera


@pytest.mark.parametrize("group", ["geometry", "model", "loss", "em"])
def test_what_extensions_add_stands_below_the_paper_and_is_off_in_it(group):
  helps = [
    d.help.startswith("Extension: ") for d in declarations(getattr(Config(), group)).values()
  ]
  assert helps == sorted(helps) and any(helps) and not all(helps)
  added = {
    f"{group}.{name}"
    for name, declaration in declarations(getattr(Config(), group)).items()
    if declaration.help.startswith("Extension: ")
  }
  extended = [preset.settings for preset in PRESETS.values() if preset.extensions]
  extended += [extension.settings for extension in EXTENSIONS.values()]
  assert added <= {setting for settings in extended for setting in settings}
  paper, defaults = flatten(preset_settings("paper")), flatten(to_dict(Config()))
  released = flatten(preset_settings("released"))
  for name in added:
    assert paper[name] == released[name] == defaults[name], name


def test_the_order_of_settings_in_a_saved_file_means_nothing():
  saved = to_dict(Config())
  turned = {group: dict(reversed(settings.items())) for group, settings in reversed(saved.items())}
  assert from_dict(turned) == Config() and not differences(turned, saved)


def test_rounds_divide_the_steps():
  config = Config(
    train=TrainConfig(steps=10),
    em=EMConfig(rounds=3, hypotheses=(1, 8)),
  )
  assert config.round_bounds() == ((0, 3), (3, 7), (7, 10))
  assert [config.hypotheses(r) for r in range(3)] == [1, 8, 8]


def test_weights_may_differ_from_the_second_round_on():
  settings = {"loss": {"mask": 3.0}, "em": {"rounds": 3}}
  settings["em"]["later"] = ["loss.mask=2.5", "loss.camera_entropy=-0.1"]
  config = from_dict(settings)
  assert [config.at_round(index).loss.mask for index in range(3)] == [3.0, 2.5, 2.5]
  assert config.at_round(0).loss.camera_entropy == 0.0
  assert config.at_round(2).loss.camera_entropy == -0.1
  assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
  assert Config(em=EMConfig(later=())).at_round(1).loss == Config().loss
