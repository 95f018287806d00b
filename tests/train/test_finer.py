"""A network that goes on with a finer mesh predicts the same surfaces."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.tiny import tiny_config
from umr_jax.em.e_step import make_round
from umr_jax.em.first_state import bare_em_state
from umr_jax.em.m_step import finer_em_state, with_canonical_uv
from umr_jax.geometry.subdivision import refine
from umr_jax.train.finer import finer


@pytest.fixture(scope="module")
def rounds(tmp_path_factory):
  config = tiny_config(tmp_path_factory.mktemp("cache"))
  em = dataclasses.replace(config.em, hypotheses=(2,), levels=(1, 2), restart=False)
  config = dataclasses.replace(config, em=em)
  return tuple(make_round(config, index=index) for index in (0, 1))


@pytest.fixture
def state(rounds, rng):
  """A first network, but for its shape head, whose every number is drawn, Adam's included."""

  def drawn(path, leaf):
    values = rng.uniform(0.1, 1.0, np.shape(leaf)).astype(np.float32)
    return values if "offsets" in jax.tree_util.keystr(path) else leaf

  return jax.tree_util.tree_map_with_path(drawn, rounds[0].new_state(3))


def test_shapes_stay_what_they_were(rounds, state, rng):
  coarse, fine = (r.topology for r in rounds)
  assert (coarse.level, fine.level) == (1, 2)
  half = rng.normal(size=(coarse.num_half, 3)).astype(np.float32)
  half[: coarse.num_center, 1] = 0.0
  canonical = rng.uniform(size=(16, 32, 3)).astype(np.float32)
  before = with_canonical_uv(bare_em_state(half), canonical, topology=coarse)
  after = finer_em_state(before, coarse, fine)
  np.testing.assert_array_equal(after.canonical_uv, canonical)
  assert after.part_vertices.shape == (fine.num_vertices,)
  lifted = finer(state, coarse, fine)
  images = rng.uniform(size=(2, 64, 64, 3)).astype(np.float32)
  for params in ("params", "ema_params"):
    one, other = (
      r.infer(getattr(s, params), s.batch_stats, e.template, images)
      for r, s, e in zip(rounds, (state, lifted), (before, after), strict=True)
    )
    expected = [refine(np.asarray(v), coarse, fine) for v in one.vertices]
    assert np.ptp(expected, axis=0).max() > 1e-3  # two shapes
    np.testing.assert_allclose(other.vertices, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(one.cameras, other.cameras)


def test_the_optimizer_goes_on(rounds, state):
  lifted = finer(state, *(r.topology for r in rounds))
  new = rounds[1].new_state(3)
  assert jax.tree.map(np.shape, lifted.opt_state) == jax.tree.map(np.shape, new.opt_state)
  assert lifted.step == state.step
  paths = jax.tree_util.tree_leaves_with_path(lifted.opt_state)
  named = {jax.tree_util.keystr(path): leaf for path, leaf in paths}
  squares = [leaf for name, leaf in named.items() if ".nu" in name and "offsets" in name]
  assert len(squares) == 2 and all((leaf >= 0.0).all() for leaf in squares)


def test_what_has_no_shape_head_is_refused(rounds, state):
  topologies = [r.topology for r in rounds]
  with pytest.raises(ValueError, match="shape_head"):
    finer(dataclasses.replace(state, params={}, ema_params={}, opt_state=()), *topologies)
  with pytest.raises(ValueError, match="does not follow"):
    finer(state, topologies[1], topologies[1])
