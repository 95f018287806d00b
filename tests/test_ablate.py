"""The table of rows: what each row changes, what is run again, and what is refused."""

import dataclasses
import json

import pytest
from tiny import tiny_config

from experiments.launch import config_of
from umr_jax import ablate
from umr_jax.ablate import ROWS, Row, Study, config_of_row, write_table
from umr_jax.config import flatten, to_dict


@pytest.fixture
def base(tmp_path):
  return tiny_config(tmp_path)


@pytest.fixture
def study(base, tmp_path):
  return Study(
    dataset="synthetic", budget="small", base=base, out=tmp_path / "out", workdir=tmp_path / "runs"
  )


class Recorder:
  """Stands for `pipeline.run`: gives what it is told, and remembers what it was asked."""

  def __init__(self):
    self.asked = []

  def __call__(self, config, workdir):
    self.asked.append((workdir.parent.name, config.train.seed))
    evaluation = {"mask_iou": 0.5 + 0.1 * config.train.seed, "camera_error_deg": 40.0, "n": 4}
    return dataclasses.make_dataclass("Result", ["evaluation"])(evaluation)


@pytest.mark.parametrize("preset", ["best", "best_planes"])
@pytest.mark.parametrize("name", list(ROWS))
def test_every_row_is_a_run_that_differs_from_the_preset(preset, name):
  base = config_of(preset, [])
  changed = flatten(to_dict(config_of_row(base, ROWS[name], seed=0)))
  full = flatten(to_dict(config_of_row(base, ROWS["semantics"], seed=0)))
  differing = {k for k in full if changed[k] != full[k]}
  assert (not differing) == (name == "semantics")
  assert changed["train.steps"] == full["train.steps"]


def test_a_row_of_unknown_settings_is_refused(base):
  with pytest.raises(ValueError, match=r"loss\.colour"):
    config_of_row(base, Row("odd", {"loss.colour": 1.0}), seed=0)


def test_finished_rows_are_not_run_again(study, monkeypatch):
  recorder = Recorder()
  monkeypatch.setattr(ablate, "run", recorder)
  rows = ("semantics", "no_texture_cycle")
  ablate.ablate(study, rows=rows, seeds=(0,))
  assert recorder.asked == [("semantics", 0), ("no_texture_cycle", 0)]
  table = ablate.ablate(study, rows=rows, seeds=(0, 1))
  assert recorder.asked[2:] == [("semantics", 1), ("no_texture_cycle", 1)]
  assert (
    "| (c) with template and semantics | 2 | 0.550 [0.500, 0.600] | 40.0 [40.0, 40.0] |" in table
  )
  assert "| (c) without L_sv | not run |" in table
  lines = (study.out / "table.csv").read_text().splitlines()
  assert lines[0].startswith("row,seeds,mask_iou,mask_iou_low,mask_iou_high,camera_error_deg")
  assert "semantics,2,0.55000,0.50000,0.60000,40.00000,40.00000,40.00000" in lines
  saved = json.loads((study.out / "semantics.json").read_text())
  assert saved["seeds"]["1"]["mask_iou"] == pytest.approx(0.6) and saved["title"].startswith("(c)")


def test_results_of_other_settings_are_not_mixed(study, monkeypatch):
  monkeypatch.setattr(ablate, "run", Recorder())
  ablate.ablate(study, rows=("semantics",), seeds=(0,))
  longer = dataclasses.replace(
    study,
    base=dataclasses.replace(study.base, train=dataclasses.replace(study.base.train, steps=9)),
  )
  with pytest.raises(ValueError, match=r"other settings \(train\.steps\)"):
    ablate.ablate(longer, rows=("semantics",), seeds=(0, 1))


def test_a_run_of_other_length_is_not_taken_on(study, monkeypatch):
  monkeypatch.setattr(ablate, "run", Recorder())
  folder = study.workdir / "semantics" / "0"
  folder.mkdir(parents=True)
  (folder / "config.json").write_text(json.dumps({"train": {"steps": 3}}))
  with pytest.raises(ValueError, match="a run of 3 steps, not 6"):
    ablate.ablate(study, rows=("semantics",), seeds=(0,))


def test_a_setting_newer_than_a_result_does_not_lock_it(study, monkeypatch):
  recorder = Recorder()
  monkeypatch.setattr(ablate, "run", recorder)
  ablate.ablate(study, rows=("semantics",), seeds=(0,))
  path = study.out / "semantics.json"
  older = json.loads(path.read_text())
  del older["settings"]["em"]["pull_back"]
  path.write_text(json.dumps(older))
  ablate.ablate(study, rows=("semantics",), seeds=(0, 1))
  assert len(recorder.asked) == 2


def test_a_table_of_nothing_says_so(study):
  assert "| (c) with template and semantics | not run |" in write_table(study)
