"""The report of a run's folder: what is in the folder is on the page, escaped and linked."""

import dataclasses
import json
import re
import types

import jax
import numpy as np
import pytest
import trimesh

from tests.predict.test_predictor import make_snapshot, make_trained, save
from tests.tiny import tiny_config
from umr_jax.eval.evaluate import Evaluation
from umr_jax.models.infer import infer
from umr_jax.predict.inputs import as_example
from umr_jax.viz import report
from umr_jax.viz.images import save_png

EVALUATION = {
  "mask_iou": 0.5,
  "mask_iou_ci": [0.4, 0.6],
  "split": "test",
  "n": 4,
  "step": 12,
}


@pytest.fixture
def workdir(tmp_path):
  for step in (0, 4, 8, 12):
    save_png(tmp_path / "panels" / f"{step:06d}.png", np.zeros((4, 4, 3), np.uint8))
  for index in (0, 2, 10):
    folder = tmp_path / "rounds" / str(index)
    folder.mkdir(parents=True)
    (folder / "template.glb").write_bytes(b"")
  means = {"loss/total": 1.5, "weighted/mask": 0.5, "weighted/texture": 1.0, "weighted/off": 0.0}
  (folder / "objective.json").write_text(json.dumps(means))
  return tmp_path


def write(workdir, monkeypatch, skipped=(), wide=()):
  test = [types.SimpleNamespace(name=f"{number} & <b>") for number in range(4)]
  dataset = types.SimpleNamespace(
    name="birds & <b>", splits={"train": [], "test": test}, skipped=skipped
  )
  monkeypatch.setattr(report, "_write_meshes", lambda workdir, dataset, predictions: ["a_b"])
  monkeypatch.setattr(report, "wide_posteriors", lambda predictions: list(wide))
  evaluation = Evaluation(EVALUATION, predictions=None)
  sides = {f"template/{name}": 0.25 for name in ("length", "width", "height", "volume", "moved")}
  path = report.write_report(
    workdir, tiny_config(workdir), dataset, evaluation, template_sizes=[{"step": 1000, **sides}]
  )
  return path.read_text()


def test_the_page_shows_what_the_folder_holds(workdir, monkeypatch):
  page = write(workdir, monkeypatch)
  assert "birds &amp; &lt;b&gt;: step 12" in page and "<b>" not in page
  assert "Evaluation on unseen images" in page and "[0.400, 0.600]" in page
  assert re.findall(r'src="([^"]*)"', page) == [
    "meshes/a_b.html",
    *(f"panels/{step:06d}.png" for step in (0, 8, 12)),
  ]
  assert re.findall(r"<li>round (\d+)", page) == ["0", "2", "10"]
  assert "objective 1.5 (texture 1, mask 0.5)" in page
  assert "train.learning_rate = 0.001" in page
  assert re.findall(r"<td>([^<]*)", page) == ["1000", *["0.250"] * 5]
  assert "IoU</th>" not in page  # of data without true shapes
  assert "http" not in page


def test_the_cameras_of_a_search_are_shown(workdir, monkeypatch):
  save_png(workdir / "cameras.png", np.zeros((4, 4, 3), np.uint8))
  (workdir / "cameras.json").write_text(json.dumps({"untold": ["Its width is a guess."]}))
  page = write(workdir, monkeypatch)
  assert 'src="cameras.png"' in page and "Cameras before training" in page
  assert "<strong>Its width is a guess.</strong>" in page


def test_images_whose_view_stays_open_are_named(workdir, monkeypatch):
  assert "whose view is open" not in write(workdir, monkeypatch)
  page = write(workdir, monkeypatch, wide=[2, 0])
  assert re.findall(r"<li>(\d &amp; &lt;b&gt;)</li>", page) == [
    "2 &amp; &lt;b&gt;",
    "0 &amp; &lt;b&gt;",
  ]


def test_skipped_images_are_listed_with_their_reasons(workdir, monkeypatch):
  assert "<li>none</li>" in write(workdir, monkeypatch)
  page = write(workdir, monkeypatch, skipped=[("<x>.png", "no mask & no box")])
  assert "<li>&lt;x&gt;.png: no mask &amp; no box</li>" in page and "<li>none</li>" not in page


def test_the_meshes_are_those_that_were_evaluated(tmp_path, rng):
  save(tmp_path, make_snapshot())
  images = rng.integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
  examples = [
    as_example(image, name=name) for image, name in zip(images, ("a b", "c"), strict=True)
  ]
  dataset = types.SimpleNamespace(splits={"train": [], "test": [*examples, None]})
  crops = images / np.float32(255)
  found = jax.device_get(jax.jit(infer)(make_trained().model, crops))
  # As no pass of the network would have them.
  found = dataclasses.replace(found, vertices=2.0 * found.vertices)
  shown = [(crops[i], jax.tree.map(lambda rows, i=i: rows[i], found)) for i in range(2)]
  predictions = types.SimpleNamespace(shown=[*shown, None])
  assert report._write_meshes(tmp_path, dataset, predictions) == ["a_b", "c"]
  assert len(list((tmp_path / "meshes").iterdir())) == 4
  for row, stem in enumerate(("a_b", "c")):
    mesh = trimesh.load_mesh(tmp_path / "meshes" / f"{stem}.glb", process=False)
    extent = np.ptp(found.vertices[row], axis=0)[[0, 2, 1]]
    np.testing.assert_allclose(mesh.extents, extent, rtol=1e-5)
