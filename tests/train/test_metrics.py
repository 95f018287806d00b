"""metrics: the mean's algebra, the non-finite check, the files, and resuming them."""

import json
import os
import pathlib
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.train import metrics
from umr_jax.train.metrics import MetricWriter, NonFiniteError, Progress, check_finite


def lines(folder):
  text = (pathlib.Path(folder) / "metrics.jsonl").read_text()

  def refuse(name):
    raise AssertionError(f"{name} is not JSON")

  return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_non_finite_metric_is_named_with_its_step(bad):
  with pytest.raises(NonFiniteError, match=r"'loss/mask' is .* at step 17") as caught:
    check_finite({"loss/total": 1.0, "loss/mask": jnp.float32(bad)}, 17)
  assert (caught.value.metric, caught.value.step) == ("loss/mask", 17)


def test_finite_metrics_pass():
  check_finite({"a": 1.0, "b": jnp.float32(2.0), "c": np.int32(3)}, 0)


def test_a_metric_that_is_no_scalar_is_refused_by_name():
  with pytest.raises(ValueError, match=r"'loss' has shape \(4,\)"):
    check_finite({"loss": jnp.zeros(4)}, 0)


def test_a_line_holds_step_wall_time_and_metrics(tmp_path):
  with MetricWriter(tmp_path / "new" / "run", tensorboard=False) as writer:
    writer.write(20, {"loss/total": jnp.float32(0.5), "iou": 0.25, "round": np.int32(1)})
  (record,) = lines(tmp_path / "new" / "run")
  assert record["wall_s"] >= 0.0
  del record["wall_s"]
  assert record == {"step": 20, "loss/total": 0.5, "iou": 0.25, "round": 1.0}


def test_non_finite_values_are_written_as_null(tmp_path):
  with MetricWriter(tmp_path, tensorboard=False) as writer:
    writer.write(1, {"a": jnp.nan, "b": np.inf, "c": 1.0})
  (record,) = lines(tmp_path)
  assert (record["a"], record["b"], record["c"]) == (None, None, 1.0)


def test_reserved_names_are_refused(tmp_path):
  with (
    MetricWriter(tmp_path, tensorboard=False) as writer,
    pytest.raises(ValueError, match="step"),
  ):
    writer.write(1, {"step": 2.0})


@pytest.fixture
def run(tmp_path):
  with MetricWriter(tmp_path, tensorboard=False) as writer:
    for step in (10, 20, 30):
      writer.write(step, {"loss": float(step)})
  return tmp_path


def test_reopening_appends(run):
  with MetricWriter(run, tensorboard=False) as writer:
    writer.write(40, {"loss": 40.0})
  assert [record["step"] for record in lines(run)] == [10, 20, 30, 40]


@pytest.mark.parametrize(
  ("step", "kept"), [(20, [10, 20]), (25, [10, 20]), (0, []), (99, [10, 20, 30])]
)
def test_resuming_drops_what_will_be_written_again(run, step, kept):
  with MetricWriter(run, tensorboard=False, resumed_step=step):
    pass
  assert [record["step"] for record in lines(run)] == kept
  assert [path.name for path in run.iterdir()] == ["metrics.jsonl"]


def test_wall_time_goes_on_where_the_last_kept_line_left_it(run):
  path = run / "metrics.jsonl"
  path.write_text('{"step": 10, "wall_s": 100.0}\n{"step": 20, "wall_s": 900.0}\n')
  with MetricWriter(run, tensorboard=False, resumed_step=10) as writer:
    writer.write(20, {})
  assert 100.0 <= lines(run)[-1]["wall_s"] < 200.0


@pytest.mark.parametrize("resumed_step", [None, 30])
@pytest.mark.parametrize(
  "torn", ['{"step": 40, "lo', "null\n", '{"loss": 1}\n', '{"step": 5, "loss": NaN}\n', "\n"]
)
def test_damaged_lines_are_dropped_and_the_rest_is_kept(run, torn, resumed_step):
  with (run / "metrics.jsonl").open("a") as file:
    file.write(torn)
  with MetricWriter(run, tensorboard=False, resumed_step=resumed_step) as writer:
    writer.write(40, {"loss": 1.0})
  assert [record["step"] for record in lines(run)] == [10, 20, 30, 40]


def test_a_kill_while_truncating_leaves_the_old_file(run, monkeypatch):
  before = (run / "metrics.jsonl").read_bytes()

  def killed(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(os, "fsync", killed)
  with pytest.raises(KeyboardInterrupt):
    MetricWriter(run, tensorboard=False, resumed_step=10)
  assert (run / "metrics.jsonl").read_bytes() == before


def test_lines_reach_the_file_before_the_writer_is_closed(tmp_path):
  writer = MetricWriter(tmp_path, tensorboard=False)
  writer.write(1, {"loss": 1.0})
  assert len(lines(tmp_path)) == 1
  writer.close()


def test_tensorboard_events_and_images_are_written(tmp_path):
  pytest.importorskip("tensorboardX")
  with MetricWriter(tmp_path, tensorboard=True) as writer:
    writer.write(1, {"loss": 1.0})
    writer.image(1, "panel", np.zeros((4, 6, 3), np.uint8))
  assert any(path.stat().st_size > 100 for path in tmp_path.glob("events.*"))


def test_without_tensorboardx_the_rest_works(tmp_path, monkeypatch):
  monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name: None)
  with MetricWriter(tmp_path, tensorboard=True) as writer:
    writer.write(1, {"loss": 1.0})
    writer.image(1, "panel", np.zeros((4, 6, 3), np.uint8))
  assert len(lines(tmp_path)) == 1


def test_progress_shows_loss_and_images_per_second(monkeypatch, capsys):
  monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
  with Progress(total=4, start=1, batch_size=16) as progress:
    progress.update(loss=0.5)
    progress.update()
    progress.update(loss=0.25)
  shown = capsys.readouterr().err
  assert "4/4" in shown
  assert "loss=0.25" in shown
  assert "images/s=" in shown


def test_progress_is_silent_without_a_terminal(capsys):
  with Progress(total=2, start=0, batch_size=1) as progress:
    progress.update(2, loss=1.0)
  assert capsys.readouterr().err == ""
