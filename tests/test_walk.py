"""The whole path on a tiny scale: train, be killed, go on, evaluate, predict, and be refused."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

from tests.compiled_once import compiled_once
from tests.keypoint_pairs import FEW, MANY, keypoint_pairs
from tests.tiny import flags, tiny_config
from umr_jax.config.settings import to_dict
from umr_jax.em.monitor import Monitor, read_template_sizes
from umr_jax.em.run import prepare_workdir, run
from umr_jax.errors import Preempted
from umr_jax.eval.workdir import evaluate_workdir
from umr_jax.models.checkpoint import read_checkpoint
from umr_jax.predict.predictor import load_predictor

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def standard_promotion():
  with jax.numpy_dtype_promotion("standard"):
    yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
  return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def shared_functions():
  """That a process which compiles for itself ends alike is shown by killing a real one."""
  with compiled_once(), keypoint_pairs(FEW):
    yield


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, cache, shared_functions):
  workdir = tmp_path_factory.mktemp("unbroken")
  with jax.numpy_dtype_promotion("standard"):
    return workdir, run(tiny_config(cache), workdir)


def assert_same(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(x, y)


def run_until(step, config, workdir, monkeypatch):
  """A run that dies after a step, between two checkpoints or not."""
  record = Monitor.record

  def dying(self, metrics):
    asked = record(self, metrics)
    if self._step == step:
      raise KeyboardInterrupt
    return asked

  monkeypatch.setattr(Monitor, "record", dying)
  with pytest.raises(KeyboardInterrupt):
    run(config, workdir)
  monkeypatch.undo()


def losses(workdir):
  lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
  return {line["step"]: line["loss/total"] for line in lines if "loss/total" in line}


@pytest.mark.slow
def test_a_run_leaves_everything_that_was_promised(unbroken):
  workdir, result = unbroken
  for name in ("config.json", "metrics.jsonl", "report.html", "evaluation.json", "checkpoints/6"):
    assert (workdir / name).exists(), name
  assert {p.name for p in (workdir / "panels").iterdir()} >= {"000004.png", "000006.png"}
  for index in (0, 1):
    assert (workdir / "rounds" / str(index) / "template.glb").stat().st_size > 1000
    assert (workdir / "rounds" / str(index) / "canonical_uv.png").exists()
    objective = json.loads((workdir / "rounds" / str(index) / "objective.json").read_text())
    terms = [value for name, value in objective.items() if name.startswith("weighted/")]
    np.testing.assert_allclose(objective["loss/total"], sum(terms), rtol=1e-5)
    # The last line of a round: metrics are means over the steps since the line before.
    assert objective["steps"] == [3 * (index + 1)] * 2
    assert objective == result.objectives[index] and objective["template_change"] > 0.0
    assert f"objective {objective['loss/total']:.4g}" in (workdir / "report.html").read_text()
  assert len(list((workdir / "meshes").glob("*.glb"))) == 4
  assert result.evaluation == json.loads((workdir / "evaluation.json").read_text())
  assert {"mask_iou", "iou_3d", "camera_error_deg"} <= result.evaluation.keys()
  assert int(result.em_state.round) == 2
  assert set(losses(workdir)) == {2, 3, 4, 6}
  sizes = read_template_sizes(workdir)
  assert [line["step"] for line in sizes] == [0, 3, 6]
  assert sizes[0]["template/moved"] == 0.0 < sizes[1]["template/moved"]
  assert all(0.0 < line["template/volume"] < line["template/length"] ** 3 for line in sizes)


@pytest.mark.slow
def test_the_template_is_learned_and_the_canonical_map_is_a_distribution(unbroken):
  _, result = unbroken
  sphere = np.linalg.norm(result.em_state.template.half_vertices, axis=-1)
  assert not np.allclose(sphere, 1.0, atol=1e-5)
  canonical = np.asarray(result.em_state.canonical_uv)
  assert canonical.min() >= 0.0
  np.testing.assert_allclose(canonical.sum(-1), 1.0, atol=0.05)
  assert result.em_state.part_vertices.shape == (42,)


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_an_interrupted_run_ends_where_an_unbroken_one_does(
  unbroken, cache, tmp_path, monkeypatch, stop_at
):
  """Killed between two checkpoints, in either round; every number must come out the same."""
  run_until(stop_at, tiny_config(cache), tmp_path, monkeypatch)
  result = run(tiny_config(cache), tmp_path)
  assert_same(result.train_state, unbroken[1].train_state)
  assert_same(result.em_state, unbroken[1].em_state)
  assert result.evaluation == unbroken[1].evaluation
  assert losses(tmp_path)[6] == losses(unbroken[0])[6]


def complete_config(cache):
  """Every term and every part of the EM loop, in six steps."""
  config = tiny_config(cache)

  def change(group, **settings):
    return dataclasses.replace(getattr(config, group), **settings)

  return dataclasses.replace(
    config,
    geometry=change("geometry", init="silhouettes"),
    loss=change(
      "loss",
      part_probability=5.0,
      part_vertices=10.0,
      adversary=1.0,
      target_camera=5.0,
      camera_temperature=0.01,
      camera_posterior=0.5,
    ),
    em=change("em", template_every=2, parts_every=1, uv_projection="camera", hypotheses=(4, 4)),
  )


@pytest.mark.slow
@pytest.mark.usefixtures("shared_functions")
def test_the_complete_method_ends_where_it_would_have_after_an_interruption(
  cache, tmp_path, monkeypatch
):
  config = complete_config(cache)
  unbroken = run(config, tmp_path / "unbroken")
  assert unbroken.em_state.target_cameras.shape == (12, 7)
  assert jax.tree.leaves(unbroken.train_state.discriminator)
  lines = (tmp_path / "unbroken" / "metrics.jsonl").read_text().splitlines()
  named = {name for line in lines for name in json.loads(line)}
  terms = ("part_probability", "part_vertices", "target_camera", "adversary")
  assert named >= {f"loss/{name}" for name in terms}
  run_until(5, config, tmp_path / "broken", monkeypatch)
  result = run(config, tmp_path / "broken")
  assert_same(result.train_state, unbroken.train_state)
  assert_same(result.em_state, unbroken.em_state)
  assert result.evaluation == unbroken.evaluation
  assert load_predictor(tmp_path / "broken").config == config


@pytest.mark.slow
def test_a_run_that_is_asked_to_stop_saves_itself_and_goes_on(
  unbroken, cache, tmp_path, monkeypatch
):
  record = Monitor.record

  def told(self, metrics):
    record(self, metrics)
    if self._step == 1:
      signal.raise_signal(signal.SIGTERM)
    return self.stopping

  monkeypatch.setattr(Monitor, "record", told)
  with pytest.raises(Preempted, match="step 1"):
    run(tiny_config(cache), tmp_path)
  monkeypatch.undo()
  assert read_checkpoint(tmp_path).step == 1
  assert_same(run(tiny_config(cache), tmp_path).train_state, unbroken[1].train_state)


@pytest.mark.slow
def test_a_finished_run_may_be_given_more_steps(unbroken, cache, tmp_path):
  shutil.copytree(unbroken[0], tmp_path / "longer")
  result = run(tiny_config(cache, steps=8), tmp_path / "longer")
  assert int(result.train_state.step) == 8
  assert int(result.em_state.round) == 2


@pytest.mark.slow
def test_a_finished_run_given_again_only_evaluates(unbroken, cache):
  before = read_checkpoint(unbroken[0])
  run(tiny_config(cache), unbroken[0])
  after = read_checkpoint(unbroken[0])
  assert_same(before.params, after.params)


@pytest.mark.slow
def test_a_predictor_needs_nothing_but_the_work_directory(unbroken, tmp_path, rng):
  moved = tmp_path / "moved"
  shutil.copytree(unbroken[0] / "checkpoints", moved / "checkpoints")
  reconstruction = load_predictor(moved)(rng.integers(0, 255, (70, 90, 3), dtype=np.uint8))
  assert reconstruction.vertices.shape == (42, 3)
  assert reconstruction.part_probs.shape[-1] == 5
  assert reconstruction.export(tmp_path / "bird.glb").stat().st_size > 1000


def test_64_bits_are_refused_at_the_start(tmp_path):
  with jax.enable_x64(True), pytest.raises(ValueError, match="float32: unset JAX_ENABLE_X64"):
    run(tiny_config(tmp_path / "cache"), tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_another_configuration_is_refused_with_the_difference(tmp_path):
  config = tiny_config(tmp_path / "cache")
  prepare_workdir(tmp_path / "run", config)
  prepare_workdir(tmp_path / "run", config)
  (tmp_path / "run" / "checkpoints" / "2").mkdir(parents=True)
  with pytest.raises(ValueError, match=r"train\.learning_rate: 0\.001 in the work directory, 0\.1"):
    prepare_workdir(tmp_path / "run", tiny_config(tmp_path / "cache", learning_rate=0.1))
  assert json.loads((tmp_path / "run" / "config.json").read_text()) == json.loads(
    json.dumps(to_dict(config))
  )


def test_a_first_try_that_failed_before_any_checkpoint_may_be_corrected(tmp_path):
  prepare_workdir(tmp_path / "run", tiny_config(tmp_path / "cache"))
  changed = tiny_config(tmp_path / "cache", learning_rate=0.1)
  prepare_workdir(tmp_path / "run", changed)
  assert json.loads((tmp_path / "run" / "config.json").read_text()) == json.loads(
    json.dumps(to_dict(changed))
  )


@pytest.mark.parametrize("text", ["[]", '{"name": "another program"}', "{"])
def test_a_config_json_that_is_not_ours_is_left_alone(tmp_path, text):
  (tmp_path / "config.json").write_text(text)
  with pytest.raises(ValueError, match="another --workdir"):
    prepare_workdir(tmp_path, tiny_config(tmp_path / "cache"))
  assert (tmp_path / "config.json").read_text() == text


def test_a_work_directory_that_cannot_be_made_is_told_in_a_sentence(tmp_path):
  (tmp_path / "file").write_text("in the way")
  with pytest.raises(OSError, match="cannot be written"):
    prepare_workdir(tmp_path / "file" / "run", tiny_config(tmp_path))


def launch(arguments):
  return subprocess.Popen(
    [sys.executable, "-m", "experiments.train", *arguments],
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


@pytest.mark.slow
def test_kill_9_in_the_middle_loses_nothing_but_time(unbroken, cache, tmp_path):
  """The real command, really killed, as soon as its first checkpoint stands; then run again."""
  arguments = ["--json", *flags(tiny_config(cache)), f"--workdir={tmp_path}"]
  process = launch(arguments)
  deadline = time.monotonic() + 240
  while not (tmp_path / "checkpoints" / "2").exists():
    assert process.poll() is None, process.communicate()[1]
    assert time.monotonic() < deadline
    time.sleep(0.02)
  process.kill()
  process.communicate()
  process = launch(arguments)
  resumed, told = process.communicate(timeout=240)
  assert process.returncode == 0, told
  assert "Resuming from the checkpoint" in told
  shutil.copytree(unbroken[0] / "checkpoints", tmp_path / "unbroken" / "checkpoints")
  with keypoint_pairs(MANY):
    expected = evaluate_workdir(tmp_path / "unbroken", split="test").report
  assert json.loads(resumed) == json.loads(json.dumps(expected))


@pytest.mark.slow
def test_the_notebook_runs(unbroken, tmp_path, monkeypatch):
  """experiments/colab.ipynb, cell by cell, on a tiny run; the first cell installs the package."""
  workdir, _ = unbroken
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("MPLBACKEND", "agg")
  pathlib.Path("images").mkdir()
  rng = np.random.default_rng(0)
  for name in "ab":
    Image.fromarray(rng.integers(0, 255, (40, 48, 3), np.uint8)).save(f"images/{name}.png")
  notebook = json.loads((ROOT / "experiments" / "colab.ipynb").read_text())
  cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
  assert cells[0].startswith("%pip install")
  names: dict[str, object] = {}
  for cell in cells[1:]:
    exec(cell.replace("runs/quickstart", str(workdir)), names)
  assert pathlib.Path("a.glb").stat().st_size > 1000
  assert np.isfinite(names["found"]).all() and np.shape(names["found"]) == (2, 2)
