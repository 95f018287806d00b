"""Tables of a run beside what was published, and the whole path on a small copy of CUB."""

import csv
import dataclasses
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from experiments.studies.ablate import ROWS
from experiments.studies.reproduce import (
  ABLATED,
  DATASETS,
  TABLES,
  ablated_rows,
  comma_separated,
  improved_rows,
  markdown,
  table_rows,
)
from tests.tiny import tiny_config
from umr_jax.config import settings as config_lib
from umr_jax.config.presets import config_of
from umr_jax.data.cub import KEYPOINT_NAMES
from umr_jax.data.synthetic import SyntheticBuilder
from umr_jax.errors import UsageError

EVALUATION = {"mask_iou": 0.7, "kt_flow_pck": 0.5, "apk": 0.2, "step": 9, "n": 4}


def results(dataset):
  rows = table_rows(dataset, EVALUATION)
  return {"dataset": dataset, "rows": rows, "seconds_per_image": 0.5}


def test_a_row_says_how_far_the_run_is_from_the_paper():
  rows = {row["name"]: row for row in table_rows("cub", EVALUATION)}
  paper = TABLES["cub"][0].values
  gap = rows["gap to the first published row"]
  assert gap["mask_iou"] == pytest.approx(0.7 - paper["mask_iou"])
  assert "kt_camera_pck" not in gap and rows["this run"]["apk"] == 0.2
  assert rows["UMR (paper), without L_sv"]["kt_flow_pck"] == 0.295
  assert rows["ours, without L_sp"]["note"] == "not run"
  unpublished = table_rows("penguin", EVALUATION)
  assert unpublished[0]["name"] == "this run"
  assert not any("gap" in row["name"] for row in unpublished)


def test_the_table_reads_the_same_in_both_formats():
  lines = markdown(results("cub")).splitlines()
  table = list(csv.DictReader(io.StringIO(comma_separated(results("cub")))))
  assert len(table) == len(results("cub")["rows"])
  for row, line in zip(table, lines[2:], strict=False):
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[1] == row["name"] and cells[-2] == row["note"]
    assert cells[2] == (f"{float(row['mask_iou']):.3f}" if row["mask_iou"] else "")
  assert "0.500 on this machine, 0.022 on a V100" in lines[-1]


@pytest.mark.parametrize("dataset", list(DATASETS))
def test_every_data_set_has_a_config(dataset):
  config = config_of(
    DATASETS[dataset], ["train.steps=7", "data.folder=DIR"] if dataset == "cub" else []
  )
  assert config.train.steps == (7 if dataset == "cub" else config.train.steps)
  expected = {"planes": "folder", "synthetic": "synthetic", "cub": "cub"}
  expected |= {"car": "pascal3d", "motorbike": "pascal3d", "penguin": "openimages"}
  assert config.data.source == expected.get(dataset, "imagenet")


def test_aeroplanes_are_reproduced_with_parts():
  config = config_of(DATASETS["planes"], [])
  assert config.semantic and config.data.parts == "discovered"
  assert config.data.folder == "$UMR_JAX_DATA/planes"


@pytest.mark.parametrize("change", ["train.stepz=3", "steps=3", "train=3", "train.steps"])
def test_settings_that_do_not_exist_are_refused(change):
  with pytest.raises(UsageError, match=r"expected GROUP.NAME=VALUE"):
    config_of("quickstart", [change])


def fake_cub(root, count=60):
  """Drawn birds in the published files' format; keypoints are random places of their masks."""
  folder = "001.Drawn_Bird"
  for name in ("images", "segmentations"):
    (root / name / folder).mkdir(parents=True)
  (root / "parts").mkdir()
  rng = np.random.default_rng(0)
  images, split, parts = [], [], []
  drawn = SyntheticBuilder(seed=0, train_images=count, test_images=1).examples()
  for key, example in zip(range(1, count + 1), drawn, strict=False):
    stem = f"{folder}/bird_{key:03d}"
    Image.fromarray(example.image).save(root / "images" / f"{stem}.jpg")
    mask = np.round(255 * example.mask).astype(np.uint8)
    Image.fromarray(mask).save(root / "segmentations" / f"{stem}.png")
    images.append(f"{key} {stem}.jpg")
    split.append(f"{key} {int(key % 4 > 0)}")
    inside = np.argwhere(example.mask > 0.5)
    for part in range(1, len(KEYPOINT_NAMES) + 1):
      row, column = inside[rng.integers(len(inside))] + 1
      seen = int(rng.random() > 0.2)
      parts.append(f"{key} {part} {column * seen}.0 {row * seen}.0 {seen}")
  for name, lines in (("images", images), ("train_test_split", split), ("parts/part_locs", parts)):
    (root / f"{name}.txt").write_text("\n".join(lines) + "\n")


def test_rows_of_an_ablation_take_their_place(tmp_path):
  row = {
    "dataset": "cub",
    "budget": "small",
    "seeds": {"0": {"mask_iou": 0.4}, "1": {"mask_iou": 0.6}},
  }
  (tmp_path / "no_vertex_term.json").write_text(json.dumps(row))
  rows = {
    row["name"]: row
    for row in table_rows("cub", EVALUATION, ablated=ablated_rows(tmp_path, dataset="cub"))
  }
  assert rows["ours, without L_sv"]["mask_iou"] == pytest.approx(0.5)
  assert rows["ours, without L_sv"]["note"] == "ablation, small budget, 2 seeds"
  assert rows["ours, without L_sp"]["note"] == "not run"
  assert set(ABLATED.values()) <= {*ROWS, "before"}
  with pytest.raises(ValueError, match="no rows"):
    ablated_rows(tmp_path / "elsewhere", dataset="cub")
  with pytest.raises(ValueError, match="on cub, not on planes"):
    ablated_rows(tmp_path, dataset="planes")


def test_runs_with_original_and_improved_parts_take_their_place(tmp_path):
  assert improved_rows(tmp_path) == {}
  reports = {
    "before": {"mask_iou": 0.5, "kt_flow_pck": 0.25, "step": 9, "n": 4},
    "turn 1": {"mask_iou": 0.5, "kt_flow_pck": 0.5, "step": 9, "n": 4},
  }
  (tmp_path / "improved").mkdir()
  (tmp_path / "improved" / "improvement.json").write_text(json.dumps(reports))
  rows = table_rows("cub", EVALUATION, ablated=improved_rows(tmp_path))
  found = {row["name"]: row for row in rows}
  assert found["ours, (e) original part segmentation"]["kt_flow_pck"] == 0.25
  assert found["ours, improved parts, turn 1"]["kt_flow_pck"] == 0.5
  assert found["ours, (b) with template"]["note"] == "not run"


@pytest.mark.slow
def test_a_small_copy_of_cub_goes_through_every_stage(tmp_path):
  fake_cub(tmp_path / "CUB_200_2011")
  tiny = tiny_config(tmp_path / "cache")
  settings = dataclasses.replace(
    tiny,
    data=dataclasses.replace(tiny.data, source="cub", folder=str(tmp_path / "CUB_200_2011")),
  )
  flat = config_lib.flatten(config_lib.to_dict(settings))
  changes = [f"--set={name}={value!r}" for name, value in flat.items()]
  command = [sys.executable, "-m", "experiments.reproduce", "--dataset=cub", "--json"]
  out = tmp_path / "run"
  done = subprocess.run(
    [*command, f"--workdir={out}", *changes], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr[-3000:]
  told = json.loads(done.stdout.splitlines()[-1])
  assert told == json.loads((out / "results.json").read_text())
  ours, gap = told["rows"][:2]
  for metric in ("mask_iou", "kt_camera_pck", "kt_flow_pck", "apk"):
    assert 0.0 <= ours[metric] <= 1.0 and gap[metric] < 0.0
  assert told["seconds_per_image"] > 0.0 and told["evaluation"]["n"] == 15
  assert (out / "table.md").read_text() in done.stderr
  for name in ("table.csv", "precision_recall.png", "report.html"):
    assert (out / name).stat().st_size > 100
  # A finished run is not trained again.
  again = subprocess.run(
    [*command, f"--workdir={out}", "--notrain"], capture_output=True, text=True, check=False
  )
  assert again.returncode == 0, again.stderr[-3000:]
  assert json.loads(again.stdout.splitlines()[-1])["evaluation"] == told["evaluation"]
