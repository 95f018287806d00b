"""parallel: gradients over 4 devices equal those of one, refusals, replicas, and two processes."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.train import parallel

DEVICES = 4
RATE = 0.1


@pytest.fixture
def problem(rng):
  """Parameters and rows of a toy regression with unequal rows."""
  params = {"w": rng.normal(size=(3, 2)).astype(np.float32), "none": None}
  batch = {
    "x": rng.normal(size=(8, 3)).astype(np.float32) * np.arange(1, 9, dtype=np.float32)[:, None],
    "y": rng.normal(size=(8, 2)).astype(np.float32),
    "parts": None,
  }
  return params, batch


def loss_of(params, em_state, batch):
  residual = batch["x"] @ params["w"] * em_state["scale"] - batch["y"]
  return jnp.mean(jnp.square(residual))


def step(params, em_state, batch, key):
  """Plain SGD: unlike Adam it does not hide a gradient of the wrong size."""
  loss, grads = jax.value_and_grad(loss_of)(params, em_state, batch)
  grads, loss = parallel.mean_over_devices((grads, loss))
  draw = jax.random.uniform(key)
  new_params = jax.tree.map(lambda p, g: p - RATE * g, params, grads)
  return new_params, {"loss": loss, "draw": draw}


EM_STATE = {"scale": np.float32(0.5)}


@pytest.mark.parametrize("transform", ["pmap", "shard_map"])
@pytest.mark.parametrize("donate", [False, True])
def test_a_step_on_four_devices_is_the_step_on_one(problem, donate, transform):
  params, batch = problem
  loss, grads = jax.value_and_grad(loss_of)(params, EM_STATE, batch)
  key = jax.random.key(3)
  new_params, metrics = parallel.parallel_step(step, donate=donate, transform=transform)(
    parallel.replicate(params), parallel.replicate(EM_STATE), parallel.shard_batch(batch), key
  )
  parallel.assert_replicated((new_params, metrics))
  new_params, metrics = parallel.unreplicate((new_params, metrics))
  np.testing.assert_allclose(new_params["w"], params["w"] - RATE * grads["w"], rtol=1e-5)
  np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
  # Every device received the same key.
  np.testing.assert_array_equal(metrics["draw"], jax.random.uniform(key))
  assert new_params["none"] is None


def test_the_device_order_of_rows_is_the_batch_order(problem):
  _, batch = problem
  state = parallel.replicate(EM_STATE)
  double = parallel.pmap_map(lambda em_state, rows: {"x": rows["x"] * em_state["scale"]})
  result = parallel.unshard(double(state, parallel.shard_batch(batch)))
  np.testing.assert_array_equal(result["x"], batch["x"] * np.float32(0.5))


def test_means_span_all_devices():
  count = parallel.pmap_map(lambda x: parallel.mean_over_devices(x.sum()))
  mean = parallel.unreplicate(count(parallel.shard_batch(np.arange(8, dtype=np.float32))))
  assert mean == 28.0 / DEVICES


def test_replicate_and_unreplicate_are_inverse_and_keep_the_structure():
  tree = {"a": np.arange(3, dtype=np.int32), "b": (jnp.float32(2.0), None), "c": np.zeros((0, 2))}
  replicated = parallel.replicate(tree)
  assert replicated["a"].shape == (DEVICES, 3)
  assert len(replicated["a"].sharding.device_set) == DEVICES
  back = parallel.unreplicate(replicated)
  assert str(jax.tree.structure(back)) == str(jax.tree.structure(tree))
  assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(back))
  np.testing.assert_array_equal(back["a"], tree["a"])
  assert back["a"].dtype == np.int32
  assert back["b"][0].shape == ()


def test_what_was_unreplicated_survives_the_donation_of_its_source(problem):
  params, batch = problem
  state = parallel.replicate(params)
  run = parallel.parallel_step(step, donate=True)
  em_state, rows = parallel.replicate(EM_STATE), parallel.shard_batch(batch)
  saved = parallel.unreplicate(state)
  for _ in range(3):
    state, _ = run(state, em_state, rows, jax.random.key(0))
  jax.block_until_ready(state)
  np.testing.assert_array_equal(saved["w"], params["w"])


def test_the_callers_arrays_are_not_donated(problem):
  params, batch = problem
  before = params["w"].copy()
  run = parallel.parallel_step(step, donate=True)
  run(
    parallel.replicate(params),
    parallel.replicate(EM_STATE),
    parallel.shard_batch(batch),
    jax.random.key(0),
  )
  np.testing.assert_array_equal(params["w"], before)


def test_an_indivisible_batch_is_refused_with_both_numbers():
  with pytest.raises(ValueError, match=r"6 rows for 4 devices.*multiple of 4"):
    parallel.shard_batch({"x": np.zeros((6, 2))})


@pytest.mark.parametrize("bad", [np.zeros((4, 2)), np.float32(1.0)], ids=["length", "scalar"])
def test_rows_of_different_number_are_refused_by_name(bad):
  with pytest.raises(ValueError, match=r"leading lengths.*mask"):
    parallel.shard_batch({"image": np.zeros((8, 2)), "mask": bad})


def test_an_empty_batch_is_refused():
  with pytest.raises(ValueError, match="0 rows"):
    parallel.shard_batch({"x": np.zeros((0, 2))})


def test_local_batch_size_is_the_global_one_on_one_host_and_must_divide():
  assert parallel.local_batch_size(16) == 16
  with pytest.raises(ValueError, match=r"train\.batch_size is 10.*4 devices.*example 8"):
    parallel.local_batch_size(10)
  with pytest.raises(ValueError, match="example 4"):
    parallel.local_batch_size(0)


def test_one_image_a_device_is_warned_of(caplog):
  with caplog.at_level("WARNING", logger="absl"):
    parallel.local_batch_size(8)
    assert not caplog.text
    parallel.local_batch_size(4)
  assert "Use at least 8" in caplog.text


def test_replicas_that_differ_are_named():
  same = parallel.replicate({"w": np.ones(3, np.float32)})
  parallel.assert_replicated(same)
  drifting = parallel.pmap_map(
    lambda tree: {"w": tree["w"] + jnp.where(jax.lax.axis_index(parallel.AXIS) == 2, 1e-6, 0.0)}
  )(same)
  with pytest.raises(
    RuntimeError, match=r"\['params'\]\['w'\] is not the same on cpu:0 and on cpu:2:"
  ):
    parallel.assert_replicated({"ok": same, "params": drifting})


def test_equal_nans_count_as_the_same():
  parallel.assert_replicated(parallel.replicate({"w": np.full(3, np.nan, np.float32)}))


@pytest.fixture
def hosts(monkeypatch):
  """Sets the variables of a cluster, and unsets those that are not given."""

  def initialize(environment):
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
      monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
      monkeypatch.setenv(name, value)
    return parallel.initialize_hosts()

  return initialize


def test_without_variables_a_process_stays_alone(hosts):
  assert hosts({}) == (0, 1)


def test_a_cluster_of_one_needs_no_coordinator_to_answer(hosts):
  one = {"JAX_COORDINATOR_ADDRESS": "host:1", "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}
  assert hosts(one) == (0, 1)


@pytest.mark.parametrize(
  ("environment", "message"),
  [
    ({"JAX_NUM_PROCESSES": "2"}, "not JAX_COORDINATOR_ADDRESS, JAX_PROCESS_ID"),
    (
      {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "two", "JAX_PROCESS_ID": "0"},
      "two whole numbers",
    ),
    (
      {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"},
      "from 0 to 1",
    ),
  ],
)
def test_half_a_cluster_is_refused(hosts, environment, message):
  with pytest.raises(ValueError, match=message):
    hosts(environment)


def _root():
  return pathlib.Path(parallel.__file__).parents[2]


HOST_SCRIPT = """
import sys
import jax
import numpy as np
from umr_jax.train import parallel
from umr_jax.init.state import bare_em_state

index, count = parallel.initialize_hosts()
assert (index, count) == (jax.process_index(), jax.process_count()) == (int(sys.argv[1]), 2)
assert (jax.local_device_count(), jax.device_count()) == (2, 4)
assert parallel.local_batch_size(8) == 4

x = np.arange(8, dtype=np.float32).reshape(8, 1)
rows = parallel.shard_batch(x[4 * index : 4 * index + 4])
def step(w, em_state, rows, key):
  loss, grad = jax.value_and_grad(lambda w: ((rows * w - 1.0) ** 2).mean())(w)
  grad, loss = parallel.mean_over_devices((grad, loss))
  return w - 0.1 * grad, {"loss": loss, "draw": jax.random.uniform(key)}
w = parallel.replicate(np.float32(2.0))
run = parallel.parallel_step(step, donate=True)
w, metrics = run(w, parallel.replicate(np.float32(0.0)), rows, jax.random.key(1))
parallel.assert_replicated({"w": w, **metrics})
w, metrics = parallel.unreplicate((w, metrics))
expected = 2.0 - 0.1 * np.mean(2 * x * (x * 2.0 - 1.0))
np.testing.assert_allclose(w, expected, rtol=1e-6)
np.testing.assert_allclose(metrics["loss"], np.mean((2 * x - 1) ** 2), rtol=1e-6)
mapped = parallel.pmap_map(lambda s, r: r * s)(parallel.replicate(np.float32(3.0)), rows)
np.testing.assert_array_equal(parallel.unshard(mapped), 3.0 * x[4 * index : 4 * index + 4])
try:
  parallel.assert_replicated({"seed": parallel.replicate(np.int32(index))})
except RuntimeError as error:
  assert "['seed'] is not the same on host 0 and on hosts [1]" in str(error), error
else:
  raise SystemExit("hosts that differ were not noticed")
own = bare_em_state(np.full((2, 3), 1.0 + index, np.float32))
state = parallel.broadcast_from_host0(own)
np.testing.assert_array_equal(state.template.half_vertices, np.ones((2, 3)))
assert state.canonical_uv is None and int(state.round) == 0
assert parallel.replicate(state).round.dtype == np.int32
print("done", index, float(w))
"""


@pytest.mark.slow
def test_two_processes_train_as_one():
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
  common = {
    **os.environ,
    "PYTHONPATH": str(_root()),
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
    "JAX_NUM_PROCESSES": "2",
  }
  processes = [
    subprocess.Popen(
      [sys.executable, "-c", HOST_SCRIPT, str(index)],
      env={**common, "JAX_PROCESS_ID": str(index)},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in range(2)
  ]
  try:
    results = [process.communicate(timeout=120) for process in processes]
  finally:
    for process in processes:
      process.kill()
  for process, (out, err) in zip(processes, results, strict=True):
    assert process.returncode == 0, err
    assert "done" in out
  # Bit for bit the same parameter.
  assert results[0][0].split()[-1] == results[1][0].split()[-1]
