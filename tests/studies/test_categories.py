"""The table of all categories: what is run, with which settings, and how seeds are summed up."""

import csv
import io
import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.studies import categories
from umr_jax.em.run import RunResult
from umr_jax.geometry.camera import Camera, rotation
from umr_jax.models.camera_heads import upright_rotation


class Recorder:
  """In the place of training: what was asked for, and figures that tell the seed."""

  def __init__(self):
    self.asked = []

  def __call__(self, config, workdir):
    self.asked.append((config, workdir.name))
    seed = config.train.seed
    report = {"mask_iou": 0.7 + 0.01 * seed, "iou_3d": None, "split": "test"}
    if config.data.source == "synthetic":
      report["camera_error_deg"] = 10.0 + seed
    return RunResult(None, None, report, [])


@pytest.fixture
def recorder(monkeypatch, tmp_path):
  monkeypatch.setenv("UMR_JAX_DATA", str(tmp_path))
  recorder = Recorder()
  monkeypatch.setattr(categories, "run", recorder)
  return recorder


def test_all_sets_have_the_same_settings_but_for_their_data(recorder, tmp_path):
  names = ["synthetic", "planes", "cars3d"]
  found = categories.categories(names, ["train.steps=5"], tmp_path, seeds=2)
  assert [name for _, name in recorder.asked] == [f"{n}-{s}" for s in (0, 1) for n in names]
  configs = [config for config, _ in recorder.asked]
  assert {c.train.steps for c in configs} == {5} and {c.data.parts for c in configs} == {
    "discovered"
  }
  for group in ("geometry", "model", "loss", "em", "render", "parts", "refine"):
    assert len({repr(getattr(config, group)) for config in configs}) == 1
  assert json.loads((tmp_path / "results.json").read_text()) == found


def test_a_run_with_other_settings_is_not_taken_for_this_one(recorder, tmp_path):
  categories.categories(["planes"], ["train.steps=5"], tmp_path, seeds=1)
  (tmp_path / "planes-0" / "checkpoints" / "5").mkdir(parents=True)
  with pytest.raises(ValueError, match=r"loss\.mask"):
    categories.categories(["planes"], ["train.steps=5", "loss.mask=4"], tmp_path, seeds=1)


def test_seeds_are_summed_up_by_median_and_range(recorder, tmp_path):
  found = categories.categories(["synthetic", "planes"], [], tmp_path, seeds=3)
  lines = (tmp_path / "table.md").read_text().splitlines()
  assert lines[2].startswith("| synthetic (3) | 0.710 [0.700, 0.720] |  | 11.0 [10.0, 12.0] |")
  assert lines[3].startswith("| planes (3) | 0.710 [0.700, 0.720] |  |  |")
  rows = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
  assert [(row["set"], row["seed"]) for row in rows[:4]] == [
    ("synthetic", "0"),
    ("synthetic", "1"),
    ("synthetic", "2"),
    ("planes", "0"),
  ]
  assert float(rows[2]["camera_error_deg"]) == 12.0 and rows[0]["iou_3d"] == ""
  assert categories.told(found)["planes"] == {"mask_iou": pytest.approx(0.71)}


def test_side_views_are_told_by_their_azimuth():
  azimuths = jnp.array([0.0, 180.0, 7.0, -165.0, 90.0, -90.0, 45.0])  # 0 shows the side
  views = upright_rotation(azimuths, jnp.full(7, 30.0), jnp.full(7, 8.0))
  rotations = rotation(Camera(jnp.ones(7), jnp.zeros((7, 2)), views).pack())
  np.testing.assert_allclose(
    categories.degrees_off_side(np.asarray(rotations)), [0, 0, 7, 15, 90, 90, 45], atol=1e-3
  )
