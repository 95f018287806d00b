"""A run whose mesh and renders become finer from round to round."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
import trimesh

from tests.tiny import tiny_config
from umr_jax import load_predictor
from umr_jax.pipeline import run


@pytest.mark.slow
@pytest.mark.parametrize("restart", [False, True])
def test_a_mesh_becomes_finer_between_rounds(tmp_path, restart):
  config = tiny_config(tmp_path / "cache")
  em = dataclasses.replace(
    config.em, hypotheses=(2,), levels=(1, 2), render_sizes=(16, 32), restart=restart
  )
  checkpoint = dataclasses.replace(config.checkpoint, keep=10)
  config = dataclasses.replace(config, em=em, checkpoint=checkpoint)
  workdir = tmp_path / "run"
  with jax.numpy_dtype_promotion("standard"):
    result = run(config, workdir)
  assert result.em_state.template.half_vertices.shape[0] > 42
  for index, vertices in ((0, 42), (1, 162)):
    file = workdir / "rounds" / str(index) / "template.glb"
    mesh = trimesh.load(file, force="mesh", process=False)
    assert len(np.unique(np.round(mesh.vertices, 5), axis=0)) == vertices
  assert load_predictor(workdir).topology.num_vertices == 162
  # What was saved between the rounds is the coarse network, and goes on as the fine one.
  between = workdir / "checkpoints" / "3"
  assert load_predictor(between).topology.num_vertices == 42
  for step in (4, 6):
    shutil.rmtree(workdir / "checkpoints" / str(step))
  with jax.numpy_dtype_promotion("standard"):
    again = run(config, workdir)
  jax.tree.map(
    np.testing.assert_array_equal,
    (again.train_state, again.em_state),
    (result.train_state, result.em_state),
  )
