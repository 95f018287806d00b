"""What a configuration must satisfy: ranges, words, and what goes together."""

import pytest

from umr_jax.config import checks
from umr_jax.config.build import from_dict


def test_probabilities_that_no_loss_trains_are_readable_but_not_trainable():
  config = from_dict({"loss": {"camera_temperature": 0.1, "camera_entropy": 1.0}})
  with pytest.raises(ValueError, match="camera_posterior alone: it must not be 0"):
    checks.check_trainable(config)
  single = {"loss": {"camera_temperature": 0.1}, "em": {"hypotheses": [1]}}
  checks.check_trainable(from_dict(single))


def test_responsible_hypotheses_are_textured_alone():
  nested = {"loss": {"camera_temperature": 0.1, "camera_posterior": 1.0, "texture_cameras": "all"}}
  with pytest.raises(ValueError, match=r"set loss\.texture_cameras=one"):
    checks.check_trainable(from_dict(nested))
  nested["loss"]["texture_cameras"] = "one"
  checks.check_trainable(from_dict(nested))


def test_a_bank_must_teach_the_probabilities():
  """Nothing else does: the hypothesis that answers is not chosen by them."""
  nested = {"loss": {"target_camera": 1.0}}
  with pytest.raises(ValueError, match=r"target_camera is set.*camera_posterior"):
    checks.check_trainable(from_dict(nested))
  nested["loss"]["camera_posterior"] = 1.0
  checks.check_trainable(from_dict(nested))


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
    ({"geometry": {"init": "cube"}}, "geometry.init is .*one of sphere, silhouettes"),
    ({"geometry": {"uv_height": 96}}, "power of two"),
    ({"em": {"hypotheses": []}}, "em.hypotheses"),
    ({"em": {"hypotheses": [1, 8], "restart": False}}, "needs a restart"),
    ({"loss": {"texture": 0.0}}, "nothing would use"),
    ({"em": {"later": ["mask=2.5"]}}, "expected a weight such as"),
    ({"em": {"later": ["loss.mask=half"]}}, "em.later cannot be read"),
    ({"em": {"later": ["loss.texture_cameras=1"]}}, "must name a loss weight"),
    ({"em": {"later": ["loss.mask=-1"]}}, "must name a loss weight"),
    ({"em": {"later": ["loss.adversary=0"]}}, "there in all rounds"),
    (
      {"em": {"later": ["loss.mask=1"], "rounds": 1, "hypotheses": [8]}},
      "no later round",
    ),
  ],
)
def test_a_wrong_setting_is_refused_with_its_name(nested, message):
  with pytest.raises(ValueError, match=message):
    from_dict(nested)


def test_entropy_may_be_kept_up_as_well_as_pushed_down():
  assert from_dict({"loss": {"camera_entropy": -0.05}}).loss.camera_entropy == -0.05
