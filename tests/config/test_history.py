"""Checkpoints and config.json files of before, read as they were meant."""

import dataclasses

import pytest

from umr_jax.config import history
from umr_jax.config.build import changes, differences, from_dict, from_saved
from umr_jax.config.settings import Config, flatten, to_dict


@pytest.fixture
def removed(monkeypatch):
  """A table of removed settings with one scalar and one list."""
  table = {"em.gone": (0, 1), "em.gone_sizes": ((0.8, 1.3),)}
  monkeypatch.setattr(history, "REMOVED", table)
  return table


@pytest.mark.parametrize("sizes", [[0.8, 1.3], (0.8, 1.3)])
def test_a_removed_setting_is_read_where_it_means_what_the_code_does(removed, sizes):
  assert from_dict({"em": {"gone": 0, "gone_sizes": sizes}}) == Config()


@pytest.mark.parametrize(("name", "value"), [("gone", 5), ("gone_sizes", [0.8]), ("gone_too", 0)])
def test_a_removed_setting_with_another_value_is_refused_by_name(removed, name, value):
  with pytest.raises(ValueError, match=rf"em\.{name}\b"):
    from_dict({"em": {name: value}})


def test_a_removed_setting_is_no_change_where_it_means_what_the_code_does(removed):
  new = to_dict(Config())
  old = {**new, "em": {**new["em"], "gone": 0, "gone_sizes": [0.8, 1.3]}}
  assert not differences(old, new) and not differences(new, old)
  # It made no difference to what was computed.
  old["em"]["gone"] = 1
  assert from_dict(old) == Config() and not differences(old, new)
  old["em"]["gone"] = 5
  assert differences(old, new) == ["em.gone: 5 in the work directory, 0 now"]


def test_a_setting_that_still_exists_is_not_read_as_a_removed_one(monkeypatch):
  monkeypatch.setattr(history, "REMOVED", {"em.rounds": (2,)})
  three = {"em": {"rounds": 3}}
  assert from_dict(three).em.rounds == 3
  assert "em.rounds: 2 in the work directory, 3 now" in differences({}, to_dict(from_dict(three)))


def test_a_choice_is_read_under_the_name_that_it_had():
  old = {"geometry": {"init": "egg"}}
  assert from_dict(old).geometry.init == "sphere"
  old = to_dict(from_dict(old)) | old
  assert not differences(old, to_dict(Config()))
  solid = to_dict(from_dict({"geometry": {"init": "silhouettes"}}))
  assert differences(old, solid) == [
    "geometry.init: 'sphere' in the work directory, 'silhouettes' now"
  ]


@pytest.mark.parametrize(
  ("name", "kept", "other"),
  [
    ("geometry.radii", [1.0, 1.0, 1.0], [0.9, 0.4, 0.5]),
    ("geometry.first_cameras", "views", "layout"),
    ("em.bank_every", 0, 500),
    ("em.levels", [], [2, 3]),
    ("train.ema_decay", 0.0, 0.99),
  ],
)
def test_a_checkpoint_of_before_is_read_or_refused_by_name(name, kept, other):
  group, setting = name.split(".")
  assert from_dict({group: {setting: kept}}) == Config()
  saved = to_dict(Config())
  saved[group][setting] = kept
  assert not differences(saved, to_dict(Config()))
  with pytest.raises(ValueError, match=rf"{group}\.{setting} is .* was removed"):
    from_dict({group: {setting: other}})
  saved[group][setting] = other
  assert len(differences(saved, to_dict(Config()))) == 1


@pytest.mark.parametrize(
  ("beside", "same"),
  [({"target_camera": 5.0}, True), ({"target_camera": 0.0}, False)],
)
def test_what_nothing_reads_is_no_change(beside, same):
  def saved(temperature, **more):
    loss = {"camera_temperature": temperature, "camera_posterior": 2.0, **beside, **more}
    return to_dict(from_dict({"loss": loss}))

  assert (not differences(saved(0.01), saved(0.02))) == same
  # It matters where one of the two runs reads it.
  assert "loss.camera_temperature" in changes(saved(0.01), saved(0.02, target_camera=0.0))


def test_removed_settings_belong_to_groups_that_exist():
  groups = {field.name for field in dataclasses.fields(Config)}
  assert {name.split(".")[0] for name in history.REMOVED} <= groups


def test_names_of_earlier_versions_are_read_as_the_names_of_now():
  old = {
    "geometry": {"first": "volume", "first_parts": True, "volume_cost": 0.4, "width": 0.4},
    "model": {"flow": "camera"},
    "loss": {
      "texture_cameras": "one",
      "camera_bank": 5.0,
      "part_vertices": 1.0,
      "deviation": 5.0,
      "deviation_stop": 300,
    },
    "em": {"pull_back": "camera", "mean_up": False, "bank_evenness": 0.5},
  }
  new = from_dict(old)
  assert (new.geometry.init, new.geometry.hull_cost) == ("visual_hull", 0.4)
  assert new.init_parts and new.geometry.init_width == 0.4
  assert new.model.flow == "projected"
  assert (new.loss.target_camera, new.loss.shape_variance) == (5.0, 5.0)
  assert new.em.uv_projection == "camera"
  assert differences(old, to_dict(from_saved(old))) == []


def test_a_setting_that_is_newer_than_the_run_counts_as_its_default():
  old = to_dict(Config())
  del old["data"]["rotation"]
  assert not differences(old, to_dict(Config()))
  turned = to_dict(Config())
  turned["data"] = {**turned["data"], "rotation": 5.0}
  assert differences(old, turned) == ["data.rotation: 0.0 in the work directory, 5.0 now"]


def test_a_run_of_before_goes_on_as_it_was_although_the_defaults_changed():
  """It holds all settings; one that it lacks is newer than it, and was what the run did."""
  complete = to_dict(from_dict({"model": {"texture_stem": "conv"}, "render": {"antialias": 1}}))
  assert to_dict(from_saved(complete)) == complete
  saved = from_saved({"train": {"steps": 500}})
  assert saved.train.steps == 500 and saved.loss.adversary == 0.0
  flat = flatten(to_dict(saved))
  unsaid = {name for name in history.FORMER_DEFAULTS if name in flat} - {"train.steps"}
  assert unsaid and all(flat[name] == history.FORMER_DEFAULTS[name] for name in unsaid)
  assert changes({}, {})["loss.adversary"] == (0.0, 1.0)
  assert changes({}, to_dict(from_saved({}))) == {}


def test_former_defaults_are_of_settings_whose_default_is_another_now():
  now = flatten(to_dict(Config()))
  assert all(now[name] != value for name, value in history.FORMER_DEFAULTS.items())
