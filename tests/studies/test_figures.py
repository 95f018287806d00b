"""Figures of a tiny run: every one is an image or has the reason why it is missing."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from experiments.studies.figures import correspondence, grids, make, plots
from experiments.studies.figures.make import Extras, make_figures
from tests.keypoint_pairs import FEW, keypoint_pairs
from tests.tiny import tiny_config
from umr_jax.em.run import run
from umr_jax.models.infer import build_net
from umr_jax.viz.images import save_png


def test_the_diagram_has_the_networks_real_parameters_and_shapes(tmp_path):
  config = tiny_config(tmp_path)
  counts, shapes = plots.parameter_counts(config)
  net = build_net(config, hypotheses=2)
  with jax.numpy_dtype_promotion("standard"):
    images = jax.numpy.zeros((1, 64, 64, 3))
    keys = {"params": jax.random.key(0), "noise": jax.random.key(1)}
    begin = jax.jit(lambda x: net.init_with_output(keys, x, train=False))
    prediction, variables = begin(images)
  total = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
  assert sum(counts.values()) == total and set(counts) == set(variables["params"])
  assert shapes["cameras"] == "2 x 7" and shapes["flow_map"] == "16 x 32 x 2"
  assert shapes["half_offsets"] == " x ".join(map(str, prediction.half_offsets.shape[1:]))
  figure = plots.architecture_figure(config)
  written = {text.get_text() for text in figure.axes[0].texts}
  assert {f"{name}: {shape}" for name, shape in shapes.items()} <= written
  image = plots.pixels_of(figure)
  assert image.dtype == np.uint8 and image.std() > 5


def test_curves_are_plotted_where_they_belong():
  flat = {"precision": [0.5] * 100, "recall": np.linspace(0, 1, 100).tolist()}
  assert plots.curves_of({"apk_curve": flat, "apk": 0.5}) == {"by flow": flat}
  figure = plots.precision_recall_figure({"by flow": flat})
  axes = figure.axes[0]
  (line,) = axes.get_lines()
  np.testing.assert_array_equal(line.get_xdata(), flat["recall"])
  np.testing.assert_array_equal(line.get_ydata(), flat["precision"])
  assert axes.get_xlim() == axes.get_ylim() == (0.0, 1.0)
  assert (axes.get_xlabel(), axes.get_ylabel()) == ("recall", "precision")
  image = plots.pixels_of(figure).astype(int)
  height = len(image)
  # The line lies where the axes say: a row of pixels in its colour, the default cycle's first.
  left, y = axes.transData.transform((0.05, 0.5))
  right, _ = axes.transData.transform((0.95, 0.5))
  row = image[height - round(y), round(left) : round(right)]
  assert (np.abs(row - [31, 119, 180]).sum(axis=-1) < 10).mean() > 0.9


def test_dots_are_where_points_are():
  image = correspondence._dotted(np.zeros((32, 32, 3), np.float32), np.array([[0.5, -0.5]]))
  rows, columns = np.nonzero(image.sum(axis=-1))
  assert rows.mean() == pytest.approx(correspondence.CELL * 0.25, abs=2)
  assert columns.mean() == pytest.approx(correspondence.CELL * 0.75, abs=2)
  hidden = correspondence._dotted(
    np.zeros((32, 32, 3), np.float32), np.array([[0.5, -0.5]]), shown=np.array([False])
  )
  assert not hidden.any()


def test_evenly_spaced_items_have_both_ends():
  assert grids.evenly_spaced(range(10, 21), 3) == [10, 15, 20]
  assert grids.evenly_spaced([3, 1], 5) == [3, 1]
  assert grids.evenly_spaced([], 5) == []


@pytest.mark.slow
def test_every_figure_is_an_image_or_has_a_reason(tmp_path, monkeypatch):
  # A run's subjects are the same whichever figures ask for them.
  monkeypatch.setattr(make, "load_subjects", functools.cache(make.load_subjects))
  with jax.numpy_dtype_promotion("standard"), keypoint_pairs(FEW):
    workdir = tmp_path / "run"
    run(tiny_config(tmp_path / "cache"), workdir)
    save_png(tmp_path / "drawings" / "one.png", np.full((40, 60, 3), 0.5, np.float32))
    bare = make_figures(workdir, tmp_path / "bare", extras=Extras(), limit=4)
    assert "--images" in bare["1"]["missing"] and "--compare" in bare["11"]["missing"]
    assert "--ablation" in bare["10"]["missing"] and "improve_scops" in bare["5"]["missing"]
    save_png(
      workdir / "improved" / "1" / "parts" / "improvement.png",
      np.random.default_rng(0).random((50, 200, 3), np.float32),
    )
    shutil.copytree(workdir, tmp_path / "ablation" / "semantics" / "0")
    extras = Extras(images=tmp_path / "drawings", compare=workdir, ablation=tmp_path / "ablation")
    made = make_figures(workdir, tmp_path / "out", extras=extras, limit=4)
  assert made == json.loads((tmp_path / "out" / "figures.json").read_text())
  for number, entry in made.items():
    assert ("file" in entry) != ("missing" in entry), number
    if "file" in entry:
      with Image.open(tmp_path / "out" / entry["file"]) as image:
        assert image.width > 100 and np.asarray(image).std() > 5
  drawn = {int(number) for number, entry in made.items() if "file" in entry}
  assert drawn >= {*range(1, 9), 10, 11, 12}
