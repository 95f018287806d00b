"""Parts learned anew from reconstructions: turns of the real thing, and what is refused."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from tests.compiled_once import compiled_once
from tests.keypoint_pairs import FEW, keypoint_pairs
from tests.tiny import plain_loss, tiny_config
from umr_jax.config.build import from_dict
from umr_jax.config.settings import PartsConfig, to_dict
from umr_jax.data.part_store import read_store
from umr_jax.em.improve_parts import improve
from umr_jax.em.run import discover_parts, run
from umr_jax.eval.workdir import evaluate_workdir
from umr_jax.init.state import bare_em_state
from umr_jax.models.checkpoint import Snapshot, read_checkpoint


@pytest.fixture(scope="module", autouse=True)
def small_parts():
  with pytest.MonkeyPatch.context() as patch:
    for name, value in {"encoder_steps": 2, "image_size": 32, "feature_size": 64}.items():
      patch.setattr(PartsConfig, name, value)
    yield


@pytest.fixture(scope="module", autouse=True)
def shared_functions():
  """The turns' networks are one network, trained with other parts."""
  with compiled_once(), keypoint_pairs(FEW):
    yield


def semantic_config(cache, parts="discovered"):
  base = tiny_config(cache, steps=4)
  return dataclasses.replace(
    base,
    data=dataclasses.replace(base.data, parts=parts),
    parts=PartsConfig(method="position", features="encoder"),
    loss=plain_loss(part_probability=1.0, part_vertices=1.0),
    em=dataclasses.replace(base.em, rounds=1, hypotheses=(1,)),
  )


@pytest.fixture(scope="module")
def improved(tmp_path_factory):
  """A run, where its turns go, and the reports of one turn."""
  folder = tmp_path_factory.mktemp("improved")
  workdir, out = folder / "run", folder / "turns"
  with jax.numpy_dtype_promotion("standard"):
    run(semantic_config(folder / "cache"), workdir)
    return workdir, out, improve(workdir, out, turns=1)


@pytest.mark.slow
def test_a_turn_fits_parts_and_trains_with_them_once(improved, monkeypatch):
  workdir, out, reports = improved
  before = read_store(workdir / "parts" / "parts.npz")
  with Image.open(workdir / "parts" / "sheet.png") as sheet:
    assert sheet.width > 500
  assert list(reports) == ["before", "turn 1"]
  for report in reports.values():
    assert 0.0 <= report["discovered_nmi"] <= 1.0 and report["landmark_error"] > 0.0
  after = read_store(out / "1" / "parts" / "parts.npz")
  assert after.names == before.names and not np.array_equal(after.maps, before.maps)
  config = from_dict(read_checkpoint(out / "1").config)
  assert config.data.parts == "file"
  with Image.open(out / "1" / "parts" / "improvement.png") as figure:
    # Four of the six that teach, and four of the six that do not.
    assert figure.width == pytest.approx(4 * 128, abs=40)
    assert figure.height == pytest.approx(8 * 128, abs=80)
    # Parts are coloured, in each of the columns that show them, of both.
    for half in np.split(np.asarray(figure)[: figure.height // 2 * 2].astype(int), 2):
      for column in np.split(half[:, -3 * 128 :], 3, axis=1):
        assert (np.ptp(column, axis=-1) > 60).mean() > 0.01
  # What is finished is not done again.
  monkeypatch.setattr("umr_jax.em.improve_parts.run", refused)
  monkeypatch.setattr("umr_jax.eval.workdir.evaluate_workdir", refused)
  assert improve(workdir, out, turns=1) == reports
  assert reports == json.loads((out / "improvement.json").read_text())


@pytest.mark.slow
def test_a_second_turn_learns_from_the_first_and_goes_on_where_it_stopped(improved):
  workdir, out, reports = improved
  with jax.numpy_dtype_promotion("standard"):
    twice = improve(workdir, out, turns=2)
    assert list(twice) == ["before", "turn 1", "turn 2"]
    assert twice["before"] == reports["before"] and twice["turn 1"] == reports["turn 1"]
    first, second = (read_store(out / turn / "parts" / "parts.npz") for turn in "12")
    assert second.names == first.names and not np.array_equal(second.maps, first.maps)
    learned = from_dict(read_checkpoint(out / "2").config).data.part_file
    assert learned == str(out / "2" / "parts" / "parts.npz")
    # As if it had been interrupted, and evaluated so.
    shutil.rmtree(out / "2" / "checkpoints" / "4")
    assert evaluate_workdir(out / "2", split="test").report["step"] == 2
    again = improve(workdir, out, turns=2)
  assert again["turn 2"]["step"] == 4
  assert again["turn 2"]["mask_iou"] == pytest.approx(twice["turn 2"]["mask_iou"], abs=1e-6)


def refused(*arguments, **options):
  raise AssertionError(f"done anew: {arguments}, {options}")


@pytest.mark.parametrize(
  ("parts", "canonical", "message"),
  [
    ("discovered", False, "has no parts"),
    ("given", True, "the data's own.*--replace_given"),
    ("keypoints", True, "made of keypoints.*--replace_given"),
  ],
)
def test_a_run_without_parts_or_with_parts_that_were_given_is_refused(
  tmp_path, monkeypatch, parts, canonical, message
):
  em_state = bare_em_state(np.zeros((26, 3), np.float32))
  if canonical:
    em_state = dataclasses.replace(em_state, canonical_uv=np.zeros((16, 32, 5), np.float32))
  settings = to_dict(semantic_config(tmp_path, parts))
  snapshot = Snapshot(
    config=settings, params={}, batch_stats={}, frozen={}, em_state=em_state, step=2
  )
  monkeypatch.setattr("umr_jax.em.improve_parts.read_checkpoint", lambda workdir: snapshot)
  with pytest.raises(ValueError, match=message):
    improve(tmp_path, tmp_path / "out", turns=1)
  assert not (tmp_path / "out" / "1").exists()
  if canonical:
    # Where it is meant, the run is evaluated: the next step.
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
      improve(tmp_path, tmp_path / "out", turns=1, replace_given=True)


def test_parts_are_discovered_and_measured_without_a_run(tmp_path):
  config = semantic_config(tmp_path / "cache")
  # The data's own maps, which these are measured by, have 4.
  config = dataclasses.replace(config, data=dataclasses.replace(config.data, part_count=6))
  report = discover_parts(config, tmp_path / "parts-run")
  assert read_store(tmp_path / "parts-run" / "parts" / "parts.npz").maps.shape[-1] == 7
  assert report["discovered_iou"] > 0.0
  assert json.loads((tmp_path / "parts-run" / "parts.json").read_text()) == report
  assert report["landmark_error_ci"][0] <= report["landmark_error"]
  assert (tmp_path / "parts-run" / "parts" / "sheet.png").is_file()
