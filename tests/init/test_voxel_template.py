"""Voxels with features: what a view shows, and what images say of features and shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.init.planted import RESOLUTION, planted_template, planted_views
from umr_jax.geometry import camera
from umr_jax.init.voxel_template import (
  VoxelTemplate,
  carve,
  ellipsoid,
  fit_features,
  sum_on_voxels,
  upsampled,
  view_maps,
  voxel_centers,
)
from umr_jax.models.camera_heads import upright_rotation
from umr_jax.models.framed_images import HALF_FRAME
from umr_jax.models.view_template import render_features

pytestmark = pytest.mark.usefixtures("optimized")


def test_a_view_shows_the_nearest_voxel_where_the_camera_projects_it():
  template, views = planted_template(), planted_views(8)
  maps = jax.device_get(view_maps(template.occupied, views, size=48))
  centers = voxel_centers(RESOLUTION).reshape(-1, 3)
  for k in range(8):
    shown = np.unique(maps.voxels[k])
    shown = shown[shown >= 0]
    assert template.occupied.ravel()[shown].all()
    view = camera.Camera(jnp.ones(1), jnp.zeros((1, 2)), views[k : k + 1]).pack()
    projected = np.asarray(camera.project(jnp.asarray(centers)[None], view))[0]
    rows, columns = np.nonzero(maps.voxels[k] >= 0)
    pixels = (2.0 * np.stack([columns, rows], axis=-1) + 1.0) / 48 - 1.0
    places = maps.centers[k] + HALF_FRAME * maps.sides[k] * pixels
    gaps = np.abs(projected[maps.voxels[k][rows, columns], :2] - places)
    assert gaps.max() < 0.11  # no further than a voxel's own half diagonal
    # No occupied voxel lies clearly nearer on the same ray.
    for place, voxel in list(zip(places, maps.voxels[k][rows, columns], strict=True))[::37]:
      on_ray = np.linalg.norm(projected[:, :2] - place, axis=1) < 0.02
      before = projected[:, 2] < projected[voxel, 2] - 0.2
      assert not (on_ray & before & np.asarray(template.occupied).ravel()).any()


def test_frames_are_centred_on_the_silhouette_and_as_large_as_its_area():
  maps = view_maps(ellipsoid((0.9, 0.45, 0.3), RESOLUTION), planted_views(6), size=48)
  shown = np.asarray(maps.voxels >= 0)
  np.testing.assert_allclose(shown.mean(axis=(1, 2)), 1.0 / (2.0 * HALF_FRAME) ** 2, rtol=0.08)
  at = (2.0 * np.arange(48) + 1.0) / 48 - 1.0
  np.testing.assert_allclose((shown.sum(axis=1) @ at) / shown.sum(axis=(1, 2)), 0.0, atol=0.03)


def test_rendered_features_are_the_voxels_own():
  template = planted_template()
  maps = view_maps(template.occupied, planted_views(3), size=24)
  values = np.asarray(render_features(template.features, maps.voxels))
  hit = np.asarray(maps.voxels) >= 0
  np.testing.assert_array_equal(values[..., -1], hit)
  table = np.asarray(template.features).reshape(-1, 6)
  np.testing.assert_array_equal(values[hit][:, :-1], table[np.asarray(maps.voxels)[hit]])
  assert not values[~hit].any()


def test_features_are_recovered_from_renders():
  template = planted_template()
  maps = view_maps(template.occupied, planted_views(36), size=24)
  renders = render_features(template.features, maps.voxels)
  total = sum_on_voxels(renders, maps.voxels, resolution=RESOLUTION)
  np.testing.assert_allclose(total[..., -1].sum(), np.asarray(maps.voxels >= 0).sum(), rtol=1e-6)
  fitted = VoxelTemplate(template.occupied, fit_features(total, 1e-3))
  again = render_features(fitted.features, maps.voxels)
  shown = np.asarray(maps.voxels) >= 0
  error = np.asarray(again - renders)[shown]
  assert (error**2).mean() < 0.15 * (np.asarray(renders)[shown] ** 2).mean()


def test_carving_finds_the_shape_from_an_ellipsoid_and_puts_it_in_the_middle():
  template, views = planted_template(), planted_views(48)
  truth = view_maps(template.occupied, views, size=24)
  silhouettes = (truth.voxels >= 0).astype(jnp.float32)
  shape = ellipsoid((1.0, 0.5, 0.4), RESOLUTION)
  before = view_maps(shape, views, size=24)
  for _ in range(2):
    shape = carve(shape, silhouettes, jnp.ones(48), view_maps(shape, views, size=24), views)
  after = view_maps(shape, views, size=24)

  def overlap(maps):
    both = np.asarray(maps.voxels >= 0), np.asarray(silhouettes) > 0.5
    return np.logical_and(*both).sum() / np.logical_or(*both).sum()

  assert overlap(after) > 0.85 > overlap(before)
  np.testing.assert_array_equal(shape, np.asarray(shape)[:, ::-1])
  x, _, z = (np.nonzero(np.asarray(shape))[axis] for axis in range(3))
  for axis in (x, z):
    assert abs(axis.min() + axis.max() - (RESOLUTION - 1)) <= 1


def test_images_from_the_side_alone_do_not_make_a_wide_template():
  turns = jnp.asarray([0.0, 180.0, 4.0, 176.0, 184.0, 356.0])
  views = upright_rotation(turns, jnp.zeros(6), jnp.zeros(6))
  true = planted_template().occupied
  silhouettes = (view_maps(true, views, size=24).voxels >= 0).astype(jnp.float32)
  shape = ellipsoid((1.0, 0.5, 0.4), RESOLUTION)
  for _ in range(3):
    shape = carve(shape, silhouettes, jnp.ones(6), view_maps(shape, views, size=24), views)
  length, width, height = np.ptp(np.argwhere(np.asarray(shape)), axis=0) + 1
  assert width < 1.5 * height
  true_length, _, true_height = np.ptp(np.argwhere(np.asarray(true)), axis=0) + 1
  np.testing.assert_allclose(length / height, true_length / true_height, rtol=0.3)


def test_silhouettes_that_agree_on_nothing_leave_the_shape():
  shape, views = ellipsoid((1.0, 0.5, 0.4), RESOLUTION), planted_views(12)
  maps = view_maps(shape, views, size=24)
  nothing = jnp.zeros((12, 24, 24))
  np.testing.assert_array_equal(carve(shape, nothing, jnp.ones(12), maps, views), shape)


def test_a_finer_template_is_the_same_thing():
  template = planted_template()
  finer = upsampled(template, 48)
  assert finer.occupied.shape == (48, 48, 48)
  np.testing.assert_allclose(finer.occupied.mean(), template.occupied.mean(), rtol=0.05)
  coarse = jax.image.resize(finer.features, template.features.shape, "linear")
  inner = np.s_[4:-4, 4:-4, 4:-4]
  np.testing.assert_allclose(coarse[inner], template.features[inner], atol=0.2)
