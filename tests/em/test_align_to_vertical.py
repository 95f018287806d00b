"""The template is aligned between rounds: projections stay, and what leaned is upright."""

import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.em.align_to_vertical import align_to_vertical, mean_up
from umr_jax.geometry import camera, quaternion
from umr_jax.models.camera_heads import upright_rotation
from umr_jax.types import EMState, Template


@pytest.fixture
def leaning(rng):
  """A state whose object leans by 35 degrees, and cameras that see it upright from all around."""
  azimuth = jnp.asarray(rng.uniform(-180, 180, size=400), jnp.float32)
  elevation = jnp.asarray(rng.uniform(0, 30, size=400), jnp.float32)
  views = upright_rotation(azimuth, elevation, jnp.zeros(400))
  lean = quaternion.from_axis_angle(jnp.array([0.0, 1.0, 0.0]), jnp.deg2rad(35.0))
  rotations = quaternion.multiply(views, jnp.broadcast_to(lean, (400, 4)))
  bank = jnp.concatenate([jnp.full((400, 1), 0.5), jnp.zeros((400, 2)), rotations], axis=-1)
  half = jnp.asarray(rng.normal(size=(20, 3)), jnp.float32).at[:5, 1].set(0.0)
  state = EMState(
    round=np.int32(1),
    round_start=np.int32(0),
    template=Template(half_vertices=np.asarray(half)),
    target_cameras=np.asarray(bank),
  )
  return state, np.asarray(rotations)


def test_what_images_show_as_up_becomes_z(leaning):
  state, rotations = leaning
  up = mean_up(rotations)
  np.testing.assert_allclose(np.arctan2(up[0], up[2]), np.deg2rad(-35.0), atol=0.05)
  aligned = align_to_vertical(state, up)
  now = mean_up(aligned.target_cameras[:, 3:])
  np.testing.assert_allclose(now[0], 0.0, atol=1e-4)
  np.testing.assert_allclose(now[2], np.hypot(up[0], up[2]), rtol=1e-4)


def test_projections_and_the_mirror_plane_stay(leaning):
  state, rotations = leaning
  aligned = align_to_vertical(state, mean_up(rotations))

  def projected(state):
    points = jnp.broadcast_to(jnp.asarray(state.template.half_vertices), (400, 20, 3))
    return camera.project(points, jnp.asarray(state.target_cameras))

  np.testing.assert_allclose(projected(aligned), projected(state), atol=1e-5)
  before, after = (s.template.half_vertices[:, 1] for s in (state, aligned))
  np.testing.assert_allclose(after, before, atol=1e-6)


def test_cameras_that_do_not_agree_turn_nothing(leaning, rng):
  state, _ = leaning
  q = rng.normal(size=(400, 4))
  anywhere = (q / np.linalg.norm(q, axis=-1, keepdims=True)).astype(np.float32)
  assert align_to_vertical(state, mean_up(anywhere)) is state
