"""The table of rows: what each row changes, what is run again, and what is refused."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from experiments.studies import ablate, ablation_table
from experiments.studies.ablation_rows import ROWS, Row, config_of_row
from experiments.studies.ablation_table import Study, write_table
from experiments.studies.figures import grids
from tests.tiny import tiny_config
from umr_jax.config.checks import check_trainable
from umr_jax.config.settings import flatten, to_dict


@pytest.fixture
def base(tmp_path):
  return tiny_config(tmp_path)


@pytest.fixture
def study(base, tmp_path):
  return Study(
    dataset="synthetic",
    budget="small",
    base=base,
    made_of="the smallest run",
    out=tmp_path / "out",
    workdir=tmp_path / "runs",
  )


class Recorder:
  """Replaces `em.run.run`: records the calls, and returns an evaluation for the seed."""

  def __init__(self):
    self.asked = []

  def __call__(self, config, workdir):
    self.asked.append((workdir.parent.name, config.train.seed))
    evaluation = {"mask_iou": 0.5 + 0.1 * config.train.seed, "mask_iou_ci": [0.43, 0.5678]}
    evaluation |= {"camera_error_deg": 40.0, "camera_error_deg_ci": [31.25, 44.0], "n": 4}
    return dataclasses.make_dataclass("Result", ["evaluation"])(evaluation)


@pytest.mark.parametrize("budget", ["small", "full"])
@pytest.mark.parametrize("dataset", list(ablation_table.PRESETS))
@pytest.mark.parametrize("name", list(ROWS))
def test_every_row_is_a_run_that_differs_from_the_preset(dataset, budget, name):
  base = ablation_table.study_of(dataset, budget).base
  config = config_of_row(base, ROWS[name], seed=0)
  check_trainable(config)
  changed = flatten(to_dict(config))
  full = flatten(to_dict(config_of_row(base, ROWS["semantics"], seed=0)))
  differing = {k for k in full if changed[k] != full[k]}
  assert (not differing) == (name == "semantics")
  assert changed["train.steps"] == full["train.steps"] * (0.5 if name == "one_round_half" else 1)


@pytest.mark.parametrize("dataset", list(ablation_table.PRESETS))
def test_the_first_of_two_rounds_alone_is_that_round(dataset):
  base = ablation_table.study_of(dataset, "small").base
  alone, both = (
    config_of_row(base, ROWS[name], seed=0) for name in ("one_round_half", "two_rounds_restart")
  )
  # The schedule of a round that a restart ends is its own.
  assert both.em.restart and both.round_bounds()[0] == alone.round_bounds()[0] == (0, 500)
  # What is done every so many steps within it, too.
  assert alone.em == dataclasses.replace(both.em, rounds=1, restart=False)


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
  del older["settings"]["em"]["uv_projection"]
  path.write_text(json.dumps(older))
  ablate.ablate(study, rows=("semantics",), seeds=(0, 1))
  assert len(recorder.asked) == 2


def test_a_table_of_nothing_says_so(study):
  assert "| (c) with template and semantics | not run |" in write_table(study)


def test_one_seed_has_an_interval_over_images_where_it_was_kept(study, monkeypatch):
  monkeypatch.setattr(ablate, "run", Recorder())
  table = ablate.ablate(study, rows=("semantics", "no_texture_cycle"), seeds=(0,))
  line = "| {} | 1 | 0.500 (0.430-0.568 over images) | 40.0 (31.2-44.0 over images) |"
  assert line.format(ROWS["semantics"].title) in table
  assert "[from the lowest to the highest of them]" in table
  path = study.out / "semantics.json"
  older = json.loads(path.read_text())
  assert older["seeds"]["0"].pop("mask_iou_ci") == [0.43, 0.5678]
  del older["seeds"]["0"]["camera_error_deg_ci"]
  path.write_text(json.dumps(older))
  table = write_table(study)
  assert f"| {ROWS['semantics'].title} | 1 | 0.500 | 40.0 |" in table
  assert line.format(ROWS["no_texture_cycle"].title) in table


def test_a_clone_goes_on_with_its_committed_rows_and_says_what_they_are(tmp_path, monkeypatch):
  monkeypatch.setattr(ablate, "run", Recorder())
  tables = {}
  for dataset in ablation_table.PRESETS:
    study = ablation_table.study_of(dataset, "small", workdir=str(tmp_path / "runs"))
    assert study.out.name == f"ablate-{dataset}-small" and (study.out / "semantics.json").is_file()
    # All of them were made as they would be now.
    out = shutil.copytree(study.out, tmp_path / dataset)
    study = dataclasses.replace(study, out=out)
    tables[dataset] = ablate.ablate(study, rows=("semantics",), seeds=(0, 1))
    assert not ablate.run.asked
    assert "1000 steps a run" in tables[dataset] and "loss.mask=3" in tables[dataset]
    assert "meshes are not refined" in tables[dataset] and "with one seed" in tables[dataset]
  assert "true part maps (synthetic)" in tables["synthetic"]
  assert "**keypoint-supervised parts: an upper reference, not the method**" in tables["planes"]
  # No line of the aeroplanes' table can be taken for the method, but those without such parts.
  assert "| keypoint-supervised parts: (c) with template and semantics |" in tables["planes"]
  for title in ("(b) with template", "(c) with discovered parts", "(c) with parts by position"):
    assert f"| {title} | " in tables["planes"]
  assert "| keypoint-supervised" not in tables["synthetic"]


def test_tables_go_where_they_are_asked_to_or_beside_the_runs(tmp_path, monkeypatch):
  study = ablation_table.study_of("planes", "full", out=str(tmp_path / "afresh"))
  assert study.out == tmp_path / "afresh" and study.workdir.name == "ablate-planes-full"
  assert study.base.train.steps == 2500
  assert study.made_of == "the preset `planes` with data.parts=keypoints"
  monkeypatch.setattr(ablation_table, "_RESULTS", tmp_path / "no clone")
  study = ablation_table.study_of("planes", "small", workdir=str(tmp_path / "runs"))
  assert study.out == study.workdir == tmp_path / "runs"


def test_improved_parts_need_the_run_whose_parts_they_improve(study, monkeypatch):
  asked = []

  def improve(workdir, out, *, turns):
    asked.append((workdir, out, turns))
    return {"before": {}, "turn 1": {"mask_iou": 0.7, "mask_iou_ci": [0.6, 0.8], "n": 4}}

  recorder = Recorder()
  monkeypatch.setattr(ablate, "run", recorder)
  monkeypatch.setattr(ablate, "improve", improve)
  table = ablate.ablate(study, rows=("improved_parts",), seeds=(2,))
  assert recorder.asked == [("discovered_parts", 2)]
  runs = study.workdir
  assert asked == [(runs / "discovered_parts" / "2", runs / "improved_parts" / "2", 1)]
  assert "| (c) with improved parts | 1 | 0.700 (0.600-0.800 over images) |" in table
  assert not (study.out / "discovered_parts.json").exists()


def test_unseen_views_are_of_one_seed_and_of_finished_runs(study, monkeypatch):
  monkeypatch.setattr(ablate, "run", Recorder())
  finished = ("nothing/0", "nothing/1", "semantics/1", "adversary/2", "no_volume/0", "no_bank/0")
  for run in finished:
    (study.workdir / run / "checkpoints").mkdir(parents=True)
    (study.workdir / run / "evaluation.json").write_text("{}")
  (study.workdir / "template" / "1" / "checkpoints").mkdir(parents=True)  # goes on
  loaded = []

  def load(workdir, *, limit):
    loaded.append(str(workdir.relative_to(study.workdir)))
    return dataclasses.make_dataclass("Subjects", ["reconstructions", "config"])(
      [None] * limit, study.base
    )

  view = np.random.default_rng(0).random((grids.CELL, grids.CELL, 3), np.float32)
  monkeypatch.setattr(grids, "load_subjects", load)
  monkeypatch.setattr(grids, "_views", lambda one: [view] * 6)
  ablate.ablate(study, rows=())
  assert loaded == ["nothing/1", "semantics/1"]
  with Image.open(study.workdir / "unseen_views.png") as image:
    assert image.width > 12 * grids.CELL and 2 * grids.CELL < image.height < 3 * grids.CELL


def test_without_runs_there_is_no_image_and_the_log_says_so(study, caplog):
  with caplog.at_level("INFO", logger="absl"):
    ablate.ablate(study, rows=())
  assert "holds no finished run of nothing, template, semantics, adversary" in caplog.text
  assert not (study.workdir / "unseen_views.png").exists()
