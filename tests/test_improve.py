"""Parts learned anew from reconstructions: one turn of the real thing, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_config

from umr_jax.checkpoint import Snapshot, read_checkpoint
from umr_jax.config import LossConfig, PartsConfig, from_dict, to_dict
from umr_jax.data.part_store import read_store
from umr_jax.em.first_state import bare_em_state
from umr_jax.improve import improve
from umr_jax.pipeline import discover_parts, run


@pytest.fixture
def standard_promotion():
  import jax

  with jax.numpy_dtype_promotion("standard"):
    yield


def semantic_config(cache):
  base = tiny_config(cache, steps=4)
  return dataclasses.replace(
    base,
    data=dataclasses.replace(base.data, parts="discovered"),
    parts=PartsConfig(method="color", features="color", image_size=32, feature_size=64),
    loss=LossConfig(part_probability=1.0, part_vertices=1.0),
    em=dataclasses.replace(base.em, rounds=1, hypotheses=(1,), round_fractions=(1.0,)),
  )


@pytest.mark.slow
def test_a_turn_teaches_parts_and_trains_with_them_once(tmp_path, standard_promotion):
  workdir, out = tmp_path / "run", tmp_path / "improved"
  run(semantic_config(tmp_path / "cache"), workdir)
  before = read_store(workdir / "parts" / "parts.npz")
  with Image.open(workdir / "parts" / "sheet.png") as sheet:
    assert sheet.width > 500
  reports = improve(workdir, out, turns=1)
  assert list(reports) == ["before", "turn 1"]
  for report in reports.values():
    assert 0.0 <= report["discovered_nmi"] <= 1.0 and report["landmark_error"] > 0.0
  after = read_store(out / "1" / "parts" / "parts.npz")
  assert after.names == before.names and not np.array_equal(after.maps, before.maps)
  config = from_dict(read_checkpoint(out / "1").config)
  assert config.data.parts == "file"
  with Image.open(out / "1" / "parts" / "improvement.png") as picture:
    assert picture.width == pytest.approx(4 * 128, abs=40)
    # Parts are coloured, in each of the columns that show them.
    for column in np.split(np.asarray(picture)[:, -3 * 128 :].astype(int), 3, axis=1):
      assert (np.ptp(column, axis=-1) > 60).mean() > 0.01
  # What is finished is not done again.
  files = [out / "1" / "parts" / "parts.npz", out / "1" / "evaluation.json"]
  stamps = [file.stat().st_mtime_ns for file in files]
  again = improve(workdir, out, turns=1)
  assert [file.stat().st_mtime_ns for file in files] == stamps
  assert again == reports == json.loads((out / "improvement.json").read_text())


def test_a_run_without_parts_is_refused(tmp_path, monkeypatch):
  em_state = bare_em_state(np.zeros((26, 3), np.float32))
  settings = to_dict(tiny_config(tmp_path))
  snapshot = Snapshot(
    config=settings, params={}, batch_stats={}, ema_params={}, em_state=em_state, step=2
  )
  monkeypatch.setattr("umr_jax.improve.read_checkpoint", lambda workdir: snapshot)
  (tmp_path / "evaluation.json").write_text("{}")
  with pytest.raises(ValueError, match="knows no parts"):
    improve(tmp_path, tmp_path / "out", turns=1)
  assert not (tmp_path / "out" / "1").exists()


def test_parts_are_discovered_and_measured_without_a_run(tmp_path):
  report = discover_parts(semantic_config(tmp_path / "cache"), tmp_path / "parts-run")
  assert json.loads((tmp_path / "parts-run" / "parts.json").read_text()) == report
  assert report["landmark_error_ci"][0] <= report["landmark_error"]
  assert (tmp_path / "parts-run" / "parts" / "sheet.png").is_file()
