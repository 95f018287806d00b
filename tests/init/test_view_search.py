"""Pose search as a whole: it finds planted cameras, scale and translation with them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.init.planted import planted_images, planted_views
from umr_jax.eval.camera_error import angles_deg, global_rotation
from umr_jax.geometry import quaternion
from umr_jax.init import view_search
from umr_jax.init.dense_features import ImageMaps
from umr_jax.init.pose_search import PoseSearch
from umr_jax.init.view_search import find_views

COUNT = 72
LEVEL = PoseSearch(elevation=(-10.0, 50.0), roll=0.0, evenness=0.5)
ANYWHERE = PoseSearch(elevation=(-30.0, 90.0), roll=20.0, evenness=0.5)


def planted_maps() -> ImageMaps:
  """Every image fills its crop as a frame does: its camera has scale 1 / (1.7 side)."""
  values = np.asarray(planted_images(COUNT).values)
  return ImageMaps(values[..., :-1], values[..., -1])


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("limit", [1000, 48])
def test_planted_cameras_are_found(monkeypatch, limit):
  monkeypatch.setattr(view_search, "_FITTED", limit)
  fine = dataclasses.replace(view_search._FINE, voxels=32, pixels=36, azimuths=36)
  monkeypatch.setattr(view_search, "_FINE", fine)
  found = find_views(planted_maps(), search=LEVEL, key=jax.random.key(0))
  rotations = np.asarray(quaternion.to_matrix(jnp.asarray(found[:, 3:])))
  true = np.asarray(quaternion.to_matrix(planted_views(COUNT)))
  errors = angles_deg(rotations @ global_rotation(predicted=rotations, true=true), true)
  assert np.median(errors) < 10.0
  assert (errors < 30.0).mean() > 0.9
  sides = planted_images(COUNT).sides
  scales = found[:, 0] * np.asarray(sides) * 1.7
  assert np.std(np.log(scales)) < 0.1


def test_views_lie_within_the_bounds_that_a_user_gives():
  narrow = PoseSearch(elevation=(-10.0, 20.0), roll=0.0, evenness=0.5)
  for stage in (view_search._COARSE, view_search._FINE):
    grid = stage.grid(narrow)
    down = np.asarray(quaternion.to_matrix(grid.rotations))[:, 2, 2]
    elevation = np.degrees(np.arcsin(-down))
    assert -10.0 < elevation.min() < elevation.max() < 20.0
    wide = stage.grid(ANYWHERE)
    assert len(wide.rotations) > 6 * len(grid.rotations)
