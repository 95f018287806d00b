"""From nested dicts to configurations, and in what a run may differ from the one it continues."""

import dataclasses

import pytest

from umr_jax.config.build import differences, from_dict, from_saved, with_settings
from umr_jax.config.settings import Config, EMConfig, TrainConfig, to_dict


def test_a_config_survives_the_trip_through_a_dict():
  config = Config(train=TrainConfig(steps=7), em=EMConfig(hypotheses=(1, 4)))
  assert from_dict(to_dict(config)) == config and from_saved(to_dict(config)) == config


def test_lists_from_json_become_tuples_and_ints_become_floats():
  config = from_dict({"em": {"hypotheses": [2, 3]}, "loss": {"mask": 2}})
  assert config.em.hypotheses == (2, 3)
  assert config.loss.mask == 2.0 and isinstance(config.loss.mask, float)


def test_a_run_may_log_more_and_go_on_longer_but_not_change():
  old = to_dict(Config())
  longer = dataclasses.replace(Config(), train=TrainConfig(steps=120_000))
  assert not differences(old, to_dict(longer))
  assert len(differences(to_dict(longer), old)) == 1
  assert not differences(old, {**old, "log": {"every": 3}})
  changed = {**old, "loss": {**old["loss"], "mask": 9.0}}
  assert differences(old, changed) == ["loss.mask: 3.0 in the work directory, 9.0 now"]


def test_some_settings_are_changed_by_name():
  config = with_settings(Config(), {"train.steps": 7, "loss.mask": 2})
  assert (config.train.steps, config.loss.mask) == (7, 2.0)
  assert with_settings(config, {"train.steps": 60_000, "loss.mask": 3.0}) == Config()
  for name in ("train.stepz", "steps", "train"):
    with pytest.raises(ValueError, match=f"{name} is not a setting"):
      with_settings(Config(), {name: 1})
