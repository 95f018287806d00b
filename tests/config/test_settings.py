"""Config: what round-trips, what is refused, and what an existing run may differ in."""

import dataclasses
import json

import pytest

from umr_jax.config import checks as config_checks
from umr_jax.config import limits as config_limits
from umr_jax.config.settings import (
  _REMOVED,
  Config,
  EMConfig,
  TrainConfig,
  differences,
  flatten,
  from_dict,
  to_dict,
)


def test_a_config_survives_the_trip_through_a_dict():
  config = Config(train=TrainConfig(steps=7), em=EMConfig(hypotheses=(1, 4)))
  assert from_dict(to_dict(config)) == config


def test_lists_from_json_become_tuples_and_ints_become_floats():
  config = from_dict({"em": {"hypotheses": [2, 3]}, "loss": {"mask": 2}})
  assert config.em.hypotheses == (2, 3)
  assert config.loss.mask == 2.0 and isinstance(config.loss.mask, float)


@pytest.mark.parametrize(
  ("nested", "message"),
  [
    ({"train": {"stepz": 3}}, "Did you mean train.steps"),
    ({"trains": {}}, "Did you mean train"),
    ({"train": {"steps": 2.5}}, "train.steps is 2.5"),
    ({"train": {"steps": True}}, "train.steps is True"),
    ({"train": 3}, "group of settings"),
    ({"train": {"schedule": "linear"}}, "must be one of"),
    ({"train": {"learning_rate": float("nan")}}, "finite"),
    ({"loss": {"mask": -1.0}}, "must not be negative"),
    ({"data": {"image_size": 32}}, r"\[64, 256\]"),
    ({"data": {"source": "folder"}}, "data.folder is empty"),
    ({"data": {"folder": "x"}}, "nothing would read it"),
    ({"data": {"download": True}}, r"It belongs to .*source=cub\|pascal3d\|openimages"),
    ({"render": {"image_size": 40}}, "must divide"),
    ({"model": {"camera_elevation": [50.0, -20.0]}}, "rising angles"),
    ({"loss": {"camera_posterior": 1.0}}, "and loss.target_camera are 0"),
    ({"model": {"camera_spread": False, "camera_pose": "upright"}}, "share of the circle"),
    ({"loss": {"camera_prior": 1.0}}, "camera_prior is set, but loss.camera_temperature is 0"),
    ({"loss": {"shape_variance": 1.0}}, "loss.shape_variance_stop need each other"),
    ({"geometry": {"init": "cube"}}, "geometry.init"),
    ({"geometry": {"uv_height": 96}}, "power of two"),
    ({"em": {"round_fractions": [0.5]}}, "em.round_fractions"),
    ({"em": {"round_fractions": [0.5, 0.6]}}, "sum to 1"),
    ({"em": {"hypotheses": []}}, "em.hypotheses"),
    ({"em": {"hypotheses": [1, 8], "restart": False}}, "needs a restart"),
    ({"loss": {"perceptual_weights": "alexnet.pth", "texture": 0.0}}, "nothing would use"),
    ({"em": {"later": ["mask=2.5"]}}, "expected a weight such as"),
    ({"em": {"later": ["loss.mask=half"]}}, "em.later cannot be read"),
    ({"em": {"later": ["loss.texture_cameras=1"]}}, "must name a loss weight"),
    ({"em": {"later": ["loss.mask=-1"]}}, "must name a loss weight"),
    ({"em": {"later": ["loss.adversary=1"]}}, "there in all rounds"),
    (
      {"em": {"later": ["loss.mask=1"], "rounds": 1, "round_fractions": [1], "hypotheses": [8]}},
      "no later round",
    ),
  ],
)
def test_a_wrong_setting_is_refused_with_its_name(nested, message):
  with pytest.raises(ValueError, match=message):
    from_dict(nested)


def test_weights_may_differ_from_the_second_round_on():
  settings = {"loss": {"mask": 3.0}, "em": {"rounds": 3, "round_fractions": [0.2, 0.4, 0.4]}}
  settings["em"]["later"] = ["loss.mask=2.5", "loss.camera_entropy=-0.1"]
  config = from_dict(settings)
  assert [config.at_round(index).loss.mask for index in range(3)] == [3.0, 2.5, 2.5]
  assert config.at_round(0).loss.camera_entropy == 0.0
  assert config.at_round(2).loss.camera_entropy == -0.1
  assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
  assert Config().at_round(1) == Config()


def test_entropy_may_be_kept_up_as_well_as_pushed_down():
  assert from_dict({"loss": {"camera_entropy": -0.05}}).loss.camera_entropy == -0.05


def test_every_numeric_setting_has_limits_or_a_reason_not_to():
  # A new number must get limits: a typo in an exponent is the commonest wrong setting.
  free = {"data.split_seed", "data.synthetic_seed", "loss.deformation_start"}
  weights = "supervision concentration equivariance landmark semantic orthonormality"
  free |= {f"parts.{name}" for name in weights.split()}
  for name, value in flatten(to_dict(Config())).items():
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and not name.startswith("loss.") and name not in free:
      assert name in config_limits.LIMITS, name


def test_rounds_divide_the_steps():
  config = Config(
    train=TrainConfig(steps=10),
    em=EMConfig(rounds=3, round_fractions=(0.25, 0.25, 0.5), hypotheses=(1, 8)),
  )
  assert config.round_bounds() == ((0, 2), (2, 5), (5, 10))
  assert [config.hypotheses(r) for r in range(3)] == [1, 8, 8]


def test_a_run_may_log_more_and_go_on_longer_but_not_change():
  old = to_dict(Config())
  longer = dataclasses.replace(Config(), train=TrainConfig(steps=2000))
  assert not differences(old, to_dict(longer))
  assert len(differences(to_dict(longer), old)) == 1
  assert not differences(old, {**old, "log": {"every": 3}})
  changed = {**old, "loss": {**old["loss"], "mask": 9.0}}
  assert differences(old, changed) == ["loss.mask: 3.0 in the work directory, 9.0 now"]


def test_a_setting_that_is_newer_than_the_run_counts_as_its_default():
  old = to_dict(Config())
  del old["data"]["rotation"]
  assert not differences(old, to_dict(Config()))
  turned = to_dict(Config())
  turned["data"] = {**turned["data"], "rotation": 5.0}
  assert differences(old, turned) == ["data.rotation: 0.0 in the work directory, 5.0 now"]


@pytest.fixture
def removed(monkeypatch):
  """A table of removed settings with one scalar and one list."""
  table = {"em.gone": 0, "em.gone_sizes": (0.8, 1.3)}
  monkeypatch.setattr("umr_jax.config.settings._REMOVED", table)
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
  old["em"]["gone"] = 5
  assert differences(old, new) == ["em.gone: 5 in the work directory, 0 now"]


def test_a_setting_that_still_exists_is_not_read_as_a_removed_one(monkeypatch):
  monkeypatch.setattr("umr_jax.config.settings._REMOVED", {"em.rounds": 2})
  three = {"em": {"rounds": 3, "round_fractions": [0.25, 0.25, 0.5]}}
  assert from_dict(three).em.rounds == 3
  assert "em.rounds: 2 in the work directory, 3 now" in differences({}, to_dict(from_dict(three)))


def test_a_choice_is_read_under_the_name_that_it_had():
  old = {"geometry": {"init": "egg"}}
  assert from_dict(old).geometry.init == "sphere"
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
  assert not differences({group: {setting: kept}}, to_dict(Config()))
  with pytest.raises(ValueError, match=rf"{group}\.{setting} is .* was removed"):
    from_dict({group: {setting: other}})
  assert len(differences({group: {setting: other}}, to_dict(Config()))) == 1


def test_removed_settings_belong_to_groups_that_exist():
  groups = {field.name for field in dataclasses.fields(Config)}
  assert {name.split(".")[0] for name in _REMOVED} <= groups


def test_probabilities_that_nothing_teaches_are_readable_but_not_trainable():
  config = from_dict({"loss": {"camera_temperature": 0.1, "camera_entropy": 1.0}})
  with pytest.raises(ValueError, match="camera_posterior alone: it must not be 0"):
    config_checks.check_trainable(config)
  single = {"loss": {"camera_temperature": 0.1}, "em": {"hypotheses": [1]}}
  config_checks.check_trainable(from_dict(single))


def test_a_bank_must_teach_the_probabilities():
  """Nothing else does: the hypothesis that answers is not chosen by them."""
  nested = {"loss": {"target_camera": 1.0}}
  with pytest.raises(ValueError, match=r"target_camera is set.*camera_posterior"):
    config_checks.check_trainable(from_dict(nested))
  nested["loss"]["camera_posterior"] = 1.0
  config_checks.check_trainable(from_dict(nested))


def test_semantic_terms_without_parts_are_refused():
  with pytest.raises(ValueError, match=r"data\.parts is 'none'"):
    from_dict({"data": {"parts": "none"}, "loss": {"part_vertices": 1.0}})


def test_a_free_flow_is_not_kept_near_a_camera():
  with pytest.raises(ValueError, match=r"loss\.flow_correction.*model\.flow=projected"):
    from_dict({"loss": {"flow_correction": 1.0}})


def test_a_flow_from_the_camera_looks_through_one_camera():
  nested = {"model": {"flow": "projected"}, "loss": {"texture_cameras": "all"}}
  with pytest.raises(ValueError, match=r"model\.flow=projected.*texture_cameras=all"):
    from_dict(nested)


def test_meshes_are_fitted_only_to_silhouettes_that_are_learned():
  nested = {"refine": {"steps": 10}, "loss": {"segmentation": 0.0}}
  with pytest.raises(ValueError, match=r"refine\.steps .* set loss\.segmentation"):
    from_dict(nested)
  nested["loss"]["segmentation"] = 1.0
  assert from_dict(nested).refine.steps == 10


def test_names_of_earlier_versions_are_read_as_the_names_of_now():
  old = {
    "geometry": {"first": "volume", "first_parts": True, "volume_turns": 2, "width": 0.4},
    "model": {"flow": "camera"},
    "loss": {"camera_bank": 5.0, "part_vertices": 1.0, "deviation": 5.0, "deviation_stop": 3},
    "em": {"pull_back": "camera", "mean_up": False, "bank_evenness": 0.25},
  }
  new = from_dict(old)
  assert (new.geometry.init, new.geometry.hull_turns) == ("visual_hull", 2)
  assert (new.geometry.init_parts, new.geometry.init_width) == (True, 0.4)
  assert new.model.flow == "projected"
  assert (new.loss.target_camera, new.loss.shape_variance_stop) == (5.0, 3)
  assert (new.em.uv_projection, new.em.align_to_vertical) == ("camera", False)
  assert new.em.view_evenness == 0.25
  assert differences(old, to_dict(new)) == []
