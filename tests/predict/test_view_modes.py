"""Modes of a posterior over views."""

import numpy as np
import pytest

from umr_jax.predict.view_modes import view_modes


def turned(degrees):
  """Cameras whose object is turned about the vertical."""
  half = np.radians(np.asarray(degrees, np.float32)) / 2
  cameras = np.zeros((len(half), 7), np.float32)
  cameras[:, 0], cameras[:, 3], cameras[:, 6] = 1.0, np.cos(half), np.sin(half)
  return cameras


def test_views_near_one_another_are_one_mode_and_the_other_end_is_another():
  cameras = turned([0.0, 20.0, 180.0, 200.0, 90.0])
  probs = np.array([0.4, 0.15, 0.3, 0.12, 0.03], np.float32)
  first, second = view_modes(probs, cameras)
  np.testing.assert_allclose([first.probability, second.probability], [0.55, 0.42], atol=1e-6)
  np.testing.assert_array_equal(first.camera, cameras[0])
  np.testing.assert_array_equal(second.camera, cameras[2])
  assert len(view_modes(probs, cameras, least=0.01)) == 3


def test_modes_come_by_all_their_probability():
  probs = np.array([0.3, 0.0, 0.25, 0.25, 0.2], np.float32)
  modes = view_modes(probs, turned([0.0, 20.0, 180.0, 200.0, 90.0]))
  assert [round(mode.probability, 3) for mode in modes] == [0.5, 0.3, 0.2]
  assert sum(mode.probability for mode in modes) == pytest.approx(1.0)
