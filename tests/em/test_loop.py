"""How a run begins."""

import dataclasses
import gc
import weakref

import jax
import numpy as np
import pytest

from tests.frozen_run import train
from tests.rotations import quaternions
from tests.tiny import tiny_config
from umr_jax.config.settings import GeometryConfig
from umr_jax.data.dataset import load_dataset
from umr_jax.em.loop import EMLoop
from umr_jax.em.monitor import read_objectives
from umr_jax.em.plan import Event
from umr_jax.init.silhouettes import unit_sphere
from umr_jax.init.state import bare_em_state, init_em_state
from umr_jax.models.infer import build_topology_from
from umr_jax.random import Purpose, run_key


def first_template(config):
  topology = build_topology_from(config)
  split = load_dataset(config.data).splits["train"]
  return topology, init_em_state(config, topology, split).template.half_vertices


def with_geometry(config, **changes):
  geometry = GeometryConfig(level=1, texels_per_side=2, uv_height=16, **changes)
  return dataclasses.replace(config, geometry=geometry)


def test_the_config_says_where_a_run_begins(tmp_path):
  config = tiny_config(tmp_path)
  topology, first = first_template(with_geometry(config))
  np.testing.assert_array_equal(first, unit_sphere(topology))

  topology, first = first_template(with_geometry(config, init="silhouettes", init_width=0.4))
  assert first.shape == (topology.num_half, 3) and np.isfinite(first).all()
  length, height = np.ptp(first[:, 0]), np.ptp(first[:, 2])
  # Crops leave a margin around the longer side of each bird.
  assert 0.5 < max(length, height) < 2.0
  np.testing.assert_allclose(2 * np.abs(first[:, 1]).max(), 0.4 * length, rtol=0.15)
  _, wide = first_template(with_geometry(config, init="silhouettes", init_width=0.8))
  np.testing.assert_allclose(wide[:, 1], 2 * first[:, 1], rtol=1e-5)


def test_a_finished_loop_is_forgotten(tmp_path):
  """With its data: a process may run many."""
  config = tiny_config(tmp_path)
  split = load_dataset(config.data).splits["train"]
  loop = EMLoop(config=config, train_split=split, checkpointer=None, monitor=None)
  assert loop.round(0) is loop.round(0)
  forgotten = weakref.ref(loop)
  del loop
  gc.collect()
  assert forgotten() is None


def make_loop(config):
  return EMLoop(config=config, train_split=None, checkpointer=None, monitor=None)


def opening(config, em_state, index):
  first = make_loop(config).plan(em_state, index)[0]
  assert first.step == int(em_state.round_start)
  return first.events


@pytest.mark.parametrize(
  ("model", "em", "events"),
  [
    ({}, {}, (Event.ALIGN, Event.NEW_NETWORK)),
    ({"camera_pose": "upright"}, {}, (Event.NEW_NETWORK,)),
    ({"camera_spread": False}, {}, (Event.NEW_NETWORK,)),
    ({}, {"restart": False, "hypotheses": (2, 2)}, ()),
  ],
)
def test_the_template_is_aligned_for_a_new_network_alone(tmp_path, model, em, events):
  config = tiny_config(tmp_path)
  config = dataclasses.replace(
    config,
    model=dataclasses.replace(config.model, **model),
    em=dataclasses.replace(config.em, **em),
  )
  em_state = bare_em_state(unit_sphere(build_topology_from(config)))
  assert opening(config, em_state, 0) == ()
  later = em_state.replace(round=np.int32(1), round_start=np.int32(3))
  assert opening(config, later, 1) == events


@pytest.mark.parametrize(
  ("restart", "hypotheses", "updates"), [(True, (1, 2), [[2], []]), (False, (2,), [[2], [5]])]
)
def test_the_template_stays_while_a_new_network_trains(tmp_path, restart, hypotheses, updates):
  """In rounds of three steps, and an interval of two."""
  config = tiny_config(tmp_path)
  em = dataclasses.replace(
    config.em, template_every=2, restart=restart, hypotheses=hypotheses, later=()
  )
  config = dataclasses.replace(config, em=em)
  first = bare_em_state(unit_sphere(build_topology_from(config)))
  second = first.replace(round=np.int32(1), round_start=np.int32(3))
  plans = [make_loop(config).plan(state, index) for index, state in enumerate((first, second))]
  found = [[stop.step for stop in plan if Event.UPDATE_TEMPLATE in stop.events] for plan in plans]
  assert found == updates


def test_cameras_that_a_round_begins_with_are_not_searched_again(tmp_path):
  config = tiny_config(tmp_path)
  config = dataclasses.replace(config, loss=dataclasses.replace(config.loss, target_camera=1.0))
  em_state = bare_em_state(unit_sphere(build_topology_from(config)))
  assert opening(config, em_state, 0) == (Event.POSE_SEARCH,)
  assert opening(config, em_state.replace(target_cameras=np.ones((12, 7))), 0) == ()


def test_aligning_turns_the_template_by_the_cameras_of_the_network_before(tmp_path, monkeypatch):
  config = tiny_config(tmp_path)
  stretched = unit_sphere(build_topology_from(config)) * np.array([0.9, 0.4, 0.5], np.float32)
  before = bare_em_state(stretched)
  # All images show the object's x as up.
  lying = quaternions([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
  asked = []

  def camera_rotations(infer, *_, **__):
    asked.append(infer)
    return np.tile(lying, (4, 1))

  monkeypatch.setattr("umr_jax.em.loop.camera_rotations", camera_rotations)
  loop = make_loop(config)
  train_state = loop.round(0).init_train_state(3)
  kept, after = loop._on(Event.ALIGN, (train_state, before), 1)
  assert kept is train_state and asked == [loop.round(0).infer]
  first, now = (np.ptp(s.template.half_vertices, axis=0) for s in (before, after))
  np.testing.assert_allclose(now, first[[2, 1, 0]], atol=1e-5)


@pytest.mark.slow
def test_the_objective_improves_from_round_to_round(tmp_path):
  """On birds whose poses and shapes are the generator's, with one objective in every round."""
  # Three images a device: of a single one BatchNorm's running variance goes to zero.
  config = tiny_config(tmp_path / "cache", steps=60, batch_size=12)
  config = dataclasses.replace(
    config,
    em=dataclasses.replace(config.em, rounds=3, hypotheses=(2,), restart=False),
    checkpoint=dataclasses.replace(config.checkpoint, every=60),
    log=dataclasses.replace(config.log, panel_every=60),
  )
  with jax.numpy_dtype_promotion("standard"):
    train(config, tmp_path / "run")
  found = read_objectives(tmp_path / "run")
  totals = [summary["loss/total"] for summary in found]
  assert len(totals) == 3
  assert totals[0] > totals[1] > totals[2]
  assert all(0.0 < summary["template_change"] < 1.0 for summary in found)
  # What every round adds becomes less.
  assert found[2]["template_change"] < found[0]["template_change"]


def test_the_hull_draws_from_a_stream_of_its_own(tmp_path, monkeypatch):
  """It drew from the train step's."""
  config = with_geometry(tiny_config(tmp_path), init="visual_hull")
  split = load_dataset(config.data).splits["train"]

  class FoundError(Exception):
    pass

  def fit(*_, key, **__):
    raise FoundError(jax.random.key_data(key).tolist())

  monkeypatch.setattr("umr_jax.init.state.fit_hull_and_cameras", fit)
  with pytest.raises(FoundError) as found:
    init_em_state(config, build_topology_from(config), split)
  training = jax.random.key_data(run_key(config.train.seed, Purpose.TRAINING)).tolist()
  assert found.value.args[0] not in (training, jax.random.key_data(jax.random.key(0)).tolist())


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_a_volume_is_template_and_first_bank(tmp_path, monkeypatch):
  monkeypatch.setattr(GeometryConfig, "hull_turns", 1)
  config = with_geometry(tiny_config(tmp_path), init="visual_hull")
  topology = build_topology_from(config)
  split = load_dataset(config.data).splits["train"]
  with jax.numpy_dtype_promotion("standard"):
    bare = init_em_state(config, topology, split)
    bank = dataclasses.replace(config, loss=dataclasses.replace(config.loss, target_camera=1.0))
    state = init_em_state(bank, topology, split)
  assert bare.target_cameras is None
  assert state.target_cameras.shape == (len(split), 7)
  np.testing.assert_array_equal(state.template.half_vertices, bare.template.half_vertices)
  # It is no view of the profile's solid: cells have moved.
  flat = init_em_state(with_geometry(config, init="silhouettes"), topology, split)
  assert np.abs(state.template.half_vertices - flat.template.half_vertices).max() > 0.05
