"""The benchmark: its scene, what a line says, and that its pairs are those that count."""

import json

import numpy as np
import pytest

from experiments.studies import render_benchmark
from experiments.studies.render_benchmark import Case
from umr_jax.render import reference


def test_the_cases_are_all_combinations_under_different_names():
  chosen = list(render_benchmark.cases())
  assert len(chosen) == 3 * 3 * 2 * 2 * 2
  assert len({case.name for case in chosen}) == len(chosen)


def test_an_unknown_mode_is_no_case():
  with pytest.raises(ValueError, match="found modes depth"):
    list(render_benchmark.cases(modes=["rgb", "depth"]))


def test_the_scene_is_in_view_and_the_same_every_time():
  faces = render_benchmark.scene(320, 2)
  assert faces.shape == (2, 320, 3, 3) and faces.dtype == np.float32
  assert np.abs(faces[..., :2]).max() < 1.0 and faces[..., 2].min() > 1.0
  assert np.ptp(faces[..., :2], axis=(1, 2)).min() > 0.6
  np.testing.assert_array_equal(faces, render_benchmark.scene(320, 2))
  with pytest.raises(ValueError, match="found 100 faces"):
    render_benchmark.scene(100, 1)


@pytest.mark.parametrize("mode", render_benchmark.MODES)
def test_a_line_says_what_was_measured(mode):
  case = Case(image_size=16, faces=20, batch=2, sigma=1e-3, mode=mode)
  line = json.loads(json.dumps(render_benchmark.measure(case, repeats=1)))
  assert {
    "case", "image_size", "faces", "batch", "sigma", "mode", "forward_ms", "forward_backward_ms",
    "yardstick_ms", "renders_per_s", "pairs_per_s", "peak_rss_mb", "peak_device_mb",
    "device", "versions",
  } <= line.keys()  # fmt: skip
  for name in ("forward_ms", "forward_backward_ms", "yardstick_ms", "peak_rss_mb"):
    assert line[name] > 0.0
  assert line["renders_per_s"] == pytest.approx(2e3 / line["forward_ms"], rel=0.01, abs=0.1)


@pytest.mark.parametrize(
  ("told", "expected"),
  [
    ([None], None),
    ([{}], None),
    ([{"peak_bytes_in_use": 3 << 20}, {"peak_bytes_in_use": 5 << 20}], 5),
  ],
)
def test_the_peak_is_that_of_the_fullest_device_where_devices_tell(monkeypatch, told, expected):
  class Device:
    def __init__(self, stats):
      self.memory_stats = lambda: stats

  monkeypatch.setattr(render_benchmark.jax, "local_devices", lambda: list(map(Device, told)))
  line = render_benchmark.surroundings(1 << 20)
  assert line["peak_device_mb"] == expected and line["peak_rss_mb"] >= 1


def test_pairs_are_the_face_and_pixel_pairs_that_count():
  case = Case(image_size=16, faces=20, batch=1, sigma=1e-3, mode="silhouette")
  faces = render_benchmark.scene(20, 1)
  options = reference.Options((16, 16), sigma=1e-3, aggr_alpha="sum")
  counted = 0
  for face in faces[0]:
    alone = reference.render(face[None], np.zeros((1, 1, 1)), options)
    counted += int((alone.rgba[..., -1] > 0.0).sum())
  assert render_benchmark._count_pairs(faces, case) == counted


def test_a_mesh_file_takes_the_scenes_place(tmp_path):
  np.savez(tmp_path / "mesh.npz", vertices=np.ones((2, 3, 3)), faces=np.array([[0, 1, 2]]))
  assert render_benchmark.read_mesh(str(tmp_path / "mesh.npz"), 5).shape == (5, 1, 3, 3)
