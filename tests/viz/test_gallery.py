"""A folder of photographs becomes a folder of meshes, whatever else lies in it."""

import json
import subprocess
import sys

import numpy as np
import pytest
import trimesh
from PIL import Image

from experiments.predict import run
from tests.predict.test_predictor import SIZE, make_snapshot, make_trained, save
from umr_jax.predict.predictor import Predictor
from umr_jax.viz.gallery import find_photographs, write_gallery


@pytest.fixture(scope="module")
def predictor():
  return Predictor(make_trained(), batch_size=2)


@pytest.fixture
def photos(tmp_path, rng):
  folder = tmp_path / "photos"
  folder.mkdir()
  for name in ("a.png", "b & c.JPG", "d.png"):
    pixels = rng.integers(0, 256, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / name)
  (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:500])
  (folder / "notes.txt").write_text("not an image")
  (folder / "._a.png").write_bytes(b"what macOS notes of a.png")
  return folder


def test_every_photograph_gets_its_files_and_the_rest_a_reason(predictor, photos, tmp_path):
  out = tmp_path / "out"
  gallery = write_gallery(predictor, photos, out)
  assert gallery.written == ["a", "b & c", "d"]
  assert [name for name, _ in gallery.skipped] == ["cut.png"]
  for name in gallery.written:
    described = json.loads((out / f"{name}.json").read_text())
    assert set(described) == {
      "camera",
      "cameras",
      "camera_probs",
      "box",
      "image_size",
      "step",
      "glb",
    }
    assert (described["image_size"], described["step"]) == (SIZE, 7)
    assert (len(described["camera"]), len(described["cameras"])) == (7, 2)
    assert described["box"] == pytest.approx([-3.0, -13.0, 63.0, 53.0])
    assert len(trimesh.load_mesh(out / described["glb"], process=False).faces) == 80
    with Image.open(out / f"{name}.png") as strip:
      assert strip.size[0] > 4 * strip.size[1]
  assert len(list(out.iterdir())) == 10


def test_the_page_links_everything_and_nothing_outside(predictor, photos, tmp_path):
  gallery = write_gallery(predictor, photos, tmp_path / "out")
  page = (tmp_path / "out" / "index.html").read_text()
  assert 'src="b%20%26%20c.png"' in page
  assert "b &amp; c" in page
  assert 'href="a.glb"' in page
  assert "cut.png" in page
  assert "http" not in page
  assert gallery.total == 4


def test_masks_choose_the_crop_and_missing_ones_are_told(predictor, photos, tmp_path):
  masks = tmp_path / "masks"
  masks.mkdir()
  mask = np.zeros((40, 60), np.uint8)
  mask[10:20, 30:40] = 255
  Image.fromarray(mask).save(masks / "a.png")
  Image.fromarray(mask[:20]).save(masks / "d.png")
  gallery = write_gallery(predictor, photos, tmp_path / "out", masks=masks)
  assert gallery.written == ["a"]
  reasons = dict(gallery.skipped)
  assert "no mask" in reasons["b & c.JPG"]
  assert "(20, 60); the image has (40, 60)" in reasons["d.png"]
  described = json.loads((tmp_path / "out" / "a.json").read_text())
  assert described["box"] == pytest.approx([29.5, 9.5, 40.5, 20.5])


def test_names_that_differ_only_in_their_suffix_stay_apart(photos):
  Image.new("RGB", (8, 8)).save(photos / "a.jpg")
  found = find_photographs(photos)
  assert {name: file.name for name, file in found.items() if name.startswith("a")} == {
    "a": "a.jpg",
    "a_png": "a.png",
  }
  assert list(find_photographs(photos / "d.png")) == ["d"]


def test_inputs_are_not_overwritten_and_nothing_is_an_error(predictor, photos, tmp_path):
  with pytest.raises(ValueError, match="overwrite"):
    write_gallery(predictor, photos, photos)
  with pytest.raises(ValueError, match="overwrite"):
    write_gallery(predictor, photos / "a.png", photos)
  with pytest.raises(FileNotFoundError, match="no file or folder"):
    write_gallery(predictor, tmp_path / "nowhere", tmp_path / "out")
  with pytest.raises(FileNotFoundError, match="masks"):
    write_gallery(predictor, photos, tmp_path / "out", masks=tmp_path / "nowhere")
  with pytest.raises(ValueError, match=r"is one mask, but .* is a folder"):
    write_gallery(predictor, photos, tmp_path / "out", masks=photos / "a.png")
  (tmp_path / "empty").mkdir()
  with pytest.raises(FileNotFoundError, match="no photograph"):
    write_gallery(predictor, tmp_path / "empty", tmp_path / "out")


def test_the_launchers_run_reports_and_fails_only_if_nothing_worked(photos, tmp_path):
  save(tmp_path, make_snapshot())
  result = run(tmp_path, photos, tmp_path / "out")
  assert result["written"] == ["a", "b & c", "d"]
  assert [entry["image"] for entry in result["skipped"]] == ["cut.png"]
  assert json.dumps(result)
  with pytest.raises(ValueError, match="none of 1 photographs is usable; cut"):
    run(tmp_path, photos / "cut.png", tmp_path / "out")


@pytest.mark.slow
def test_the_command_line_has_its_exit_codes(photos, tmp_path):
  save(tmp_path, make_snapshot())

  def command(*flags):
    return subprocess.run(
      [sys.executable, "-m", "experiments.predict", *flags],
      capture_output=True,
      text=True,
      timeout=300,
    )

  here = [f"--workdir={tmp_path}", f"--out={tmp_path / 'out'}"]
  good = command(*here, f"--images={photos}", "--json")
  assert good.returncode == 0, good.stderr
  assert json.loads(good.stdout)["written"] == ["a", "b & c", "d"]
  assert "cut.png" in good.stderr
  bad = command(*here, f"--images={photos / 'cut.png'}")
  assert bad.returncode == 1
  assert "Traceback" not in bad.stderr
  assert command(*here).returncode == 2
  assert command(*here, f"--images={photos}", "--imags=x").returncode == 2
