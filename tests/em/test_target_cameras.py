"""Pose search over a training set: one camera an image, as the config asks for it."""

import dataclasses

import numpy as np

from tests.tiny import tiny_config
from umr_jax.data.dataset import load_dataset
from umr_jax.em.round import make_round
from umr_jax.em.target_cameras import with_target_cameras
from umr_jax.init.state import init_em_state


def searched(folder, **em):
  """The training set and its state after a search."""
  config = tiny_config(folder)
  config = dataclasses.replace(config, em=dataclasses.replace(config.em, **em))
  split = load_dataset(config.data).splits["train"]
  now = make_round(config, index=0)
  em_state = init_em_state(config, now.topology, split)
  return split, with_target_cameras(
    em_state,
    split,
    now.topology,
    functions=now.pose_search,
    padding=config.data.padding,
    batch_size=4 * config.train.batch_size,
    parts=config.semantic,
  )


def test_every_training_image_gets_one_camera(tmp_path):
  split, state = searched(tmp_path)
  assert state.target_cameras.shape == (len(split), 7)
  np.testing.assert_allclose(np.linalg.norm(state.target_cameras[:, 3:], axis=-1), 1.0, rtol=1e-5)
  assert (state.target_cameras[:, 0] > 0.0).all()


def test_evenness_comes_from_the_config(tmp_path):
  cameras = [searched(tmp_path, view_evenness=e)[1].target_cameras for e in (0.0, 1.0)]
  assert np.abs(cameras[0] - cameras[1]).max() > 1e-3
