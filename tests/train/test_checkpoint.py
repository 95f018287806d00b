"""Checkpoints: what comes back, what damage does, and what a kill leaves."""

import json
import logging as python_logging
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import logging

from umr_jax.models.checkpoint import CheckpointError, read_checkpoint, save_arguments
from umr_jax.train.checkpoint import Checkpointer
from umr_jax.types import (
  CanonicalFeatures,
  EMState,
  Projection,
  Template,
  TrainState,
  ViewTemplate,
)

CONFIG = {"train": {"steps": 10, "learning_rate": 1e-4}, "em": {"hypotheses": (1, 8)}}


def make_state(step: int, *, heads: int = 1, optimizer=None) -> TrainState:
  rng = np.random.default_rng(step)
  params = {
    "encoder": {"kernel": jnp.asarray(rng.normal(size=(64, 32)), jnp.float32)},
    "camera": {f"head_{k}": jnp.full((3,), k + step, jnp.float32) for k in range(heads)},
  }
  optimizer = optimizer or optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
  # No zeros: orbax leaves constant arrays out of its files.
  opt_state = jax.tree.map(
    lambda x: jnp.asarray(rng.uniform(1, 9, x.shape)).astype(x.dtype), optimizer.init(params)
  )
  return TrainState(
    step=jnp.asarray(step, jnp.int32),
    params=params,
    batch_stats={"bn": {"mean": jnp.arange(4, dtype=jnp.float32)}},
    opt_state=opt_state,
  )


def make_views() -> ViewTemplate:
  return ViewTemplate(
    projection=Projection(jnp.zeros(3), jnp.ones((3, 2))),
    features=jnp.ones((2, 2, 2, 2)),
    voxels=jnp.full((5, 4, 4), -1, jnp.int16),
    centers=jnp.zeros((5, 2)),
    sides=jnp.ones(5),
    rotations=jnp.ones((5, 4)),
    log_prior=jnp.zeros(5),
    temperature=jnp.float32(1.5),
  )


def make_features() -> CanonicalFeatures:
  return CanonicalFeatures(
    projection=Projection(jnp.ones(3), jnp.ones((3, 2))),
    values=jnp.ones((7, 2)),
    known=jnp.arange(7) > 2,
    variance=jnp.float32(0.4),
  )


def make_em(number: int = 0, *, parts: bool = False) -> EMState:
  return EMState(
    round=jnp.asarray(number, jnp.int32),
    round_start=jnp.asarray(0, jnp.int32),
    template=Template(half_vertices=jnp.full((5, 3), number + 0.5, jnp.float32)),
    canonical_uv=jnp.ones((4, 8, 3)) if parts else None,
    part_vertices=jnp.arange(7, dtype=jnp.int32) if parts else None,
    view_template=make_views() if parts else None,
    canonical_features=make_features() if parts else None,
  )


def save_steps(directory, steps, keep=5):
  with Checkpointer(directory, keep=keep) as checkpointer:
    for step in steps:
      checkpointer.save(step, make_state(step), make_em(), CONFIG)


def assert_same(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
    assert isinstance(a, np.ndarray)
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


def data_file(step_folder, item="model"):
  """The largest data file of an item: the one that holds the arrays."""
  files = [p for p in (step_folder / item).rglob("*") if p.is_file() and p.parent.name == "d"]
  return max(files, key=lambda p: p.stat().st_size)


def flip_byte(path, position=None):
  content = bytearray(path.read_bytes())
  content[len(content) // 2 if position is None else position] ^= 0x40
  path.write_bytes(bytes(content))


@pytest.mark.parametrize("parts", [False, True])
def test_a_run_comes_back_exactly_with_its_nesting(tmp_path, parts):
  state, em_state = make_state(7), make_em(1, parts=parts)
  with Checkpointer(tmp_path, keep=2) as checkpointer:
    checkpointer.save(7, state, em_state, CONFIG)
  abstract = jax.eval_shape(lambda: state)
  with Checkpointer(tmp_path, keep=2) as checkpointer:
    restored = checkpointer.restore_latest(like=lambda *_: abstract)
  assert restored.step == 7
  assert_same(restored.train_state, state)
  assert_same(restored.em_state, em_state)
  assert restored.config == json.loads(json.dumps(CONFIG))


def test_a_checkpoint_of_before_is_read(tmp_path, monkeypatch):
  """Earlier versions wrote an average of the parameters too, empty where a run kept none."""

  def as_before(step, *, model, **others):
    return save_arguments(step, model={**model, "ema_params": {}}, **others)

  monkeypatch.setattr("umr_jax.train.checkpoint.save_arguments", as_before)
  save_steps(tmp_path, [3])
  with Checkpointer(tmp_path, keep=2) as checkpointer:
    restored = checkpointer.restore_latest(like=lambda *_: make_state(0))
  assert_same(restored.train_state, make_state(3))
  assert_same(read_checkpoint(tmp_path).params, make_state(3).params)


def test_an_empty_folder_restores_to_none(tmp_path):
  with Checkpointer(tmp_path / "new", keep=2) as checkpointer:
    assert checkpointer.restore_latest() is None


def test_the_nesting_may_depend_on_the_round(tmp_path):
  with Checkpointer(tmp_path, keep=2) as checkpointer:
    checkpointer.save(3, make_state(3, heads=8), make_em(1), CONFIG)
    restored = checkpointer.restore_latest(
      like=lambda em_state, step: make_state(0, heads=8 if int(em_state.round) and step else 1)
    )
  assert_same(restored.train_state, make_state(3, heads=8))


def test_an_optimizer_without_state_is_saved(tmp_path):
  state = make_state(1, optimizer=optax.sgd(0.1))
  with Checkpointer(tmp_path, keep=2) as checkpointer:
    checkpointer.save(1, state, make_em(), CONFIG)
    restored = checkpointer.restore_latest(like=lambda *_: state)
  assert_same(restored.train_state, state)


def test_arrays_may_be_overwritten_right_after_the_save(tmp_path):
  state = jax.tree.map(lambda x: np.array(x), make_state(1))
  with Checkpointer(tmp_path, keep=2) as checkpointer:
    checkpointer.save(1, state, make_em(), CONFIG)
    state.params["encoder"]["kernel"][:] = 0.0
    restored = checkpointer.restore_latest(like=lambda *_: state)
  assert_same(restored.train_state, make_state(1))


def test_only_the_newest_steps_are_kept(tmp_path):
  save_steps(tmp_path, [1, 2, 3, 10], keep=2)
  assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["10", "3"]


def test_a_step_saved_twice_holds_the_second_state(tmp_path):
  with Checkpointer(tmp_path, keep=1) as checkpointer:
    checkpointer.save(5, make_state(5), make_em(0), CONFIG)
    checkpointer.save(5, make_state(5), make_em(1), CONFIG)
    assert int(checkpointer.restore_latest().em_state.round) == 1
  assert [p.name for p in tmp_path.iterdir()] == ["5"]


def test_a_kill_while_a_step_is_replaced_brings_the_old_one_back(tmp_path):
  save_steps(tmp_path, [5])
  (tmp_path / "5").rename(tmp_path / "5.replaced")
  with Checkpointer(tmp_path, keep=2) as checkpointer:
    assert checkpointer.restore_latest().step == 5


def truncate(step):
  path = data_file(step)
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
  "flipped byte": lambda step: flip_byte(data_file(step)),
  "flipped optimizer byte": lambda step: flip_byte(data_file(step, "optimizer")),
  "truncated data": truncate,
  "missing data": lambda step: data_file(step).unlink(),
  "missing metadata": lambda step: (step / "model" / "_METADATA").unlink(),
  "missing manifest.ocdbt": lambda step: (step / "model" / "manifest.ocdbt").unlink(),
  "missing item": lambda step: shutil.rmtree(step / "model"),
  "missing manifest": lambda step: shutil.rmtree(step / "manifest"),
  "edited manifest": lambda step: (step / "manifest" / "metadata").write_text(
    (step / "manifest" / "metadata").read_text().replace("0.0001", "0.0002")
  ),
  "broken manifest": lambda step: (step / "manifest" / "metadata").write_text("{"),
  "empty folder": lambda step: (shutil.rmtree(step), step.mkdir()),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  directory = tmp_path_factory.mktemp("saved")
  save_steps(directory, [1, 2])
  return directory


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_falls_back_to_the_step_before_and_says_why(saved, tmp_path, caplog, damage):
  workdir = tmp_path / "run"
  directory = workdir / "checkpoints"
  shutil.copytree(saved, directory)
  damage(directory / "2")
  logging.get_absl_logger().propagate = True
  with caplog.at_level(python_logging.WARNING), Checkpointer(directory, keep=3) as checkpointer:
    restored = checkpointer.restore_latest(like=lambda *_: make_state(0))
    assert restored.step == 1
    assert_same(restored.train_state, make_state(1))
    assert "damaged" in caplog.text
    assert "falling back to step 1" in caplog.text
    assert (directory / "2.damaged").is_dir()
    # The run repeats the step and saves it under the same name.
    checkpointer.save(2, make_state(2), make_em(), CONFIG)
    assert checkpointer.restore_latest().step == 2
  assert read_checkpoint(workdir).step == 2


def test_every_byte_of_the_arrays_is_covered(saved, tmp_path):
  size = data_file(saved / "2").stat().st_size
  for position in np.random.default_rng(0).integers(size, size=12):
    directory = tmp_path / str(position)
    shutil.copytree(saved, directory)
    flip_byte(data_file(directory / "2"), int(position))
    try:
      restored = Checkpointer(directory, keep=3).restore_latest(like=lambda *_: make_state(0))
    finally:
      shutil.rmtree(directory)
    # A byte that nothing reads may be flipped without effect; a wrong value never comes back.
    assert_same(restored.train_state, make_state(restored.step))


def test_when_all_are_damaged_the_run_does_not_start_anew(saved, tmp_path):
  directory = tmp_path / "checkpoints"
  shutil.copytree(saved, directory)
  for step in ("1", "2"):
    flip_byte(data_file(directory / step))
  with (
    Checkpointer(directory, keep=3) as checkpointer,
    pytest.raises(CheckpointError, match="every checkpoint found is damaged") as caught,
  ):
    checkpointer.restore_latest()
  assert "checksum" in str(caught.value)
  assert (directory / "2").is_dir()  # nothing was moved or deleted
  with pytest.raises(CheckpointError, match="every checkpoint"):
    read_checkpoint(directory)


def test_a_state_that_does_not_fit_is_refused_in_one_line(tmp_path):
  with Checkpointer(tmp_path, keep=2) as checkpointer:
    checkpointer.save(1, make_state(1, heads=8), make_em(), CONFIG)
    with pytest.raises(ValueError, match="does not fit the model") as caught:
      checkpointer.restore_latest(like=lambda *_: make_state(1, heads=1))
  assert "\n" not in str(caught.value)
  assert "head_" in str(caught.value)
  assert (tmp_path / "1").is_dir()  # a whole checkpoint is not called damaged


@pytest.mark.parametrize("where", ["", "checkpoints", "checkpoints/2"])
def test_prediction_reads_a_workdir_or_a_checkpoint_folder(saved, tmp_path, where):
  shutil.copytree(saved, tmp_path / "checkpoints")
  snapshot = read_checkpoint(tmp_path / where)
  assert snapshot.step == 2
  assert_same(snapshot.params, make_state(2).params)
  assert_same(snapshot.batch_stats, make_state(2).batch_stats)
  assert_same(snapshot.em_state, make_em())
  assert snapshot.config["train"]["steps"] == 10


def test_frozen_weights_of_format_1_lie_among_the_batch_statistics(tmp_path, monkeypatch):
  """As every checkpoint of before has them; what is read is as if written today."""
  weights = {"encoder": {"frozen": {"efficientnet": {"stem": {"kernel": jnp.ones((3, 2))}}}}}
  state = make_state(1)
  older = state.replace(batch_stats=state.batch_stats | weights)
  newer = state.replace(frozen=weights)
  monkeypatch.setattr("umr_jax.models.checkpoint.FORMAT", 1)
  with Checkpointer(tmp_path / "1", keep=2) as checkpointer:
    checkpointer.save(1, older, make_em(), CONFIG)
    assert_same(checkpointer.restore_latest(lambda *_: newer).train_state, newer)
  monkeypatch.undo()
  with Checkpointer(tmp_path / "2", keep=2) as checkpointer:
    checkpointer.save(1, newer, make_em(), CONFIG)
    assert_same(checkpointer.restore_latest(lambda *_: newer).train_state, newer)
  for folder in ("1", "2"):
    snapshot = read_checkpoint(tmp_path / folder)
    assert_same(snapshot.batch_stats, state.batch_stats)
    assert_same(snapshot.frozen, weights)


def test_an_unknown_format_is_refused_by_its_number(tmp_path, monkeypatch):
  monkeypatch.setattr("umr_jax.models.checkpoint.FORMAT", 3)
  with Checkpointer(tmp_path, keep=2) as checkpointer:
    checkpointer.save(1, make_state(1), make_em(), CONFIG)
  with pytest.raises(CheckpointError, match=r"format 3, .* reads 1 and 2"):
    read_checkpoint(tmp_path)


def test_prediction_falls_back_and_changes_nothing(saved, tmp_path):
  shutil.copytree(saved, tmp_path / "checkpoints")
  flip_byte(data_file(tmp_path / "checkpoints" / "2"))
  assert read_checkpoint(tmp_path).step == 1
  assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["1", "2"]


def test_prediction_without_a_checkpoint_says_what_was_expected(tmp_path):
  with pytest.raises(FileNotFoundError, match="expected a work directory"):
    read_checkpoint(tmp_path)


def test_opening_saving_and_restoring_are_quiet(saved, tmp_path):
  shutil.copytree(saved, tmp_path / "c")
  code = (
    "from absl import logging; logging.set_verbosity(logging.INFO)\n"
    "from umr_jax.models.checkpoint import read_checkpoint\n"
    "from umr_jax.train.checkpoint import Checkpointer\n"
    f"c = Checkpointer({str(tmp_path / 'c')!r}, keep=1)\n"
    "r = c.restore_latest(); c.save(3, r.train_state, r.em_state, {}); c.close()\n"
    f"read_checkpoint({str(tmp_path / 'c')!r})\n"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert done.stderr == ""
  assert done.stdout == ""


SAVER = """
import sys
import numpy as np, jax.numpy as jnp
from umr_jax.train.checkpoint import Checkpointer
from umr_jax.types import EMState, Projection, Template, TrainState, ViewTemplate
checkpointer = Checkpointer(sys.argv[1], keep=2)
restored = checkpointer.restore_latest()
step = restored.step if restored else 0
while True:
  step += 1
  fill = lambda *shape: np.full(shape, step, np.float32)
  params = {str(i): fill(400, 1000) for i in range(12)}
  state = TrainState(step=np.int32(step), params=params, batch_stats={},
                     opt_state=(params,))
  em_state = EMState(round=np.int32(0), round_start=np.int32(0),
                     template=Template(half_vertices=fill(3, 3)))
  checkpointer.save(step, state, em_state, {})
  print(step, flush=True)
"""


@pytest.mark.slow
def test_a_kill_during_a_save_leaves_a_whole_step(tmp_path):
  rng = np.random.default_rng(0)
  reached = 0
  for _ in range(3):
    process = subprocess.Popen(
      [sys.executable, "-c", SAVER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    first = int(process.stdout.readline())
    # It resumed from a step at most one save older than the last that was reported.
    assert first >= reached
    process.stdout.readline()
    time.sleep(rng.uniform(0.0, 0.5))
    os.kill(process.pid, signal.SIGKILL)
    reported = [int(line) for line in process.stdout]
    process.wait()
    reached = reported[-1] if reported else first + 1
    snapshot = read_checkpoint(tmp_path)
    assert snapshot.step >= reached - 1
    assert all((leaf == snapshot.step).all() for leaf in snapshot.params.values())
