"""The M-step writes the template and the canonical map, and nothing jumps when it does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.em.aggregate import SufficientStatistics
from umr_jax.em.m_step import m_step, recentre
from umr_jax.geometry.symmetry import halve
from umr_jax.geometry.topology import build_topology
from umr_jax.models.assemble import assemble_vertices, part_vertices
from umr_jax.types import EMState, Template, TrainState


@pytest.fixture
def topology():
  return build_topology(1, texels_per_side=2, symmetric_texture=True)


@pytest.fixture
def em_state(topology):
  half = halve(jnp.asarray(topology.sphere), num_center=topology.num_center)
  return EMState(
    round=np.int32(0), round_start=np.int32(0), template=Template(half_vertices=np.asarray(half))
  )


def test_the_template_moves_by_the_mean_offset_and_stays_symmetric(topology, em_state, rng):
  offsets = rng.normal(size=(topology.num_half, 3))
  new, mean_offset = m_step(em_state, SufficientStatistics(offsets * 4, 4), topology=topology)
  moved = new.template.half_vertices - em_state.template.half_vertices
  np.testing.assert_allclose(moved[:, [0, 2]], offsets[:, [0, 2]], rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(mean_offset, moved, rtol=1e-5, atol=1e-6)
  assert (new.template.half_vertices[: topology.num_center, 1] == 0.0).all()
  assert new.canonical_uv is None and new.round == em_state.round


def test_no_instance_jumps_when_the_network_is_recentred(topology, em_state, rng):
  size = topology.num_half * 3
  kernel = jnp.asarray(rng.normal(size=(7, size)), jnp.float32)
  bias = jnp.asarray(rng.normal(size=size), jnp.float32)
  params = {"shape_head": {"offsets": {"kernel": kernel, "bias": bias}}}
  state = TrainState(step=jnp.int32(3), params=params, batch_stats={}, opt_state=())
  code = jnp.asarray(rng.normal(size=(4, 7)), jnp.float32)

  def shapes(state, em_state):
    head = state.params["shape_head"]["offsets"]
    offsets = (code @ head["kernel"] + head["bias"][None]).reshape(4, -1, 3)
    return assemble_vertices(offsets, em_state.template, topology), offsets

  before, offsets = shapes(state, em_state)
  statistics = SufficientStatistics(np.asarray(offsets, np.float64).sum(0), 4)
  new_em_state, mean_offset = m_step(em_state, statistics, topology=topology)
  after, _ = shapes(recentre(state, mean_offset), new_em_state)
  np.testing.assert_allclose(after, before, atol=2e-5)
  gap = new_em_state.template.half_vertices - em_state.template.half_vertices
  assert float(np.abs(gap).max()) > 0.1


def test_recentring_needs_the_shape_head():
  state = TrainState(
    step=jnp.int32(0), params={"other": jnp.zeros(3)}, batch_stats={}, opt_state=()
  )
  with pytest.raises(ValueError, match="shape_head/offsets/bias"):
    recentre(state, jnp.zeros((1, 3)))


def test_part_vertices_follow_a_map_that_is_split_by_height(topology):
  # Part 1 in the upper rows (z > 0, since v grows downwards from the north pole), part 2 below.
  uv = np.zeros((16, 32, 3), np.float32)
  uv[:8, :, 1], uv[8:, :, 2] = 1.0, 1.0
  labels = np.asarray(part_vertices(jnp.asarray(uv), topology))
  height = topology.sphere[:, 2]
  assert (labels[height > 0.2] == 1).all() and (labels[height < -0.2] == 2).all()


def test_the_canonical_map_is_the_mean_of_the_chosen_ones(topology, em_state, rng):
  maps = rng.dirichlet(np.ones(3), (16, 32)).astype(np.float32)
  statistics = SufficientStatistics(np.zeros((topology.num_half, 3)), 2, maps * 5.0, 5)
  new, _ = m_step(em_state, statistics, topology=topology)
  np.testing.assert_allclose(new.canonical_uv, maps, rtol=1e-5)
  labels = jax.device_get(part_vertices(jnp.asarray(maps), topology))
  np.testing.assert_array_equal(new.part_vertices, labels)


def test_the_template_may_stand_still_while_the_map_moves(topology, em_state, rng):
  maps = rng.dirichlet(np.ones(3), (16, 32)).astype(np.float32)
  statistics = SufficientStatistics(rng.normal(size=(topology.num_half, 3)), 2, maps, 1)
  new, mean_offset = m_step(em_state, statistics, topology=topology, template=False)
  np.testing.assert_array_equal(new.template.half_vertices, em_state.template.half_vertices)
  assert (mean_offset == 0.0).all()
  np.testing.assert_allclose(new.canonical_uv, maps, rtol=1e-5)
