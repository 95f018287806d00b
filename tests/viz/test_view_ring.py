"""The ring of views: each image is averaged at its azimuth, beside the template seen from there."""

import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.geometry import camera
from umr_jax.geometry.topology import build_topology
from umr_jax.models.camera_heads import upright_rotation
from umr_jax.viz import view_ring as room
from umr_jax.viz.view_ring import RING, azimuth_numbers, view_ring

SIZE, CELL = 48, room._CELL


def cameras(azimuths, elevation=20.0):
  count = len(azimuths)
  angles = (jnp.asarray(azimuths, jnp.float32), jnp.full(count, elevation), jnp.zeros(count))
  rotations = upright_rotation(*angles)
  return np.asarray(camera.Camera(jnp.ones(count), jnp.zeros((count, 2)), rotations).pack())


def cell(panel, row, column):
  top, left = panel.shape[0] - 2 - (3 - row) * (CELL + 2), 2 + column * (CELL + 2)
  return panel[top : top + CELL, left : left + CELL]


@pytest.fixture(scope="module")
def topology():
  return build_topology(1, texels_per_side=2, symmetric_texture=True)


def test_every_azimuth_has_its_number_whatever_the_elevation():
  azimuths = np.arange(0.0, 360.0, 10.0)
  for elevation in (-30.0, 0.0, 70.0):
    numbers = azimuth_numbers(cameras(azimuths, elevation))
    gap = np.abs(azimuths - numbers * (360.0 / RING))
    assert np.minimum(gap, 360.0 - gap).max() <= 180.0 / RING + 1e-3


def test_images_are_averaged_where_they_are_seen_from(topology):
  red, blue = np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])
  objects = np.zeros((3, SIZE, SIZE, 4), np.float32)
  inner = np.s_[16:32, 16:32]
  for image, color in zip(objects, (red, red, blue), strict=True):
    image[inner] = [*color, 1.0]
  objects[1][inner] = 0.0  # half of the images at 90 degrees show nothing there
  panel = view_ring(objects, cameras([92.0, 88.0, 181.0]), topology.sphere, topology)
  middle = np.s_[50:62, 50:62]
  for column, color, silhouette in ((3, red, 0.5), (6, blue, 1.0)):
    shown = 255.0 * (color * silhouette + 1.0 - silhouette)
    np.testing.assert_allclose(cell(panel, 0, column)[middle].mean((0, 1)), shown, atol=4)
    np.testing.assert_allclose(cell(panel, 1, column)[middle].mean(), 255 * silhouette, atol=3)
  assert cell(panel, 0, 0).min() == 255
  assert cell(panel, 1, 0).max() == 0


def test_the_template_is_shown_from_every_azimuth_of_the_ring(topology):
  # A thing with a small end at x > 0.
  vertices = topology.sphere * np.where(topology.sphere[:, :1] > 0.3, 0.3, 1.0)
  objects = np.zeros((1, SIZE, SIZE, 4), np.float32)
  panel = view_ring(objects, cameras([0.0], 0.0), vertices, topology)
  right, left = (cell(panel, 2, column) < 200 for column in (0, 6))
  columns = np.arange(CELL)[None, :, None]
  # From the other side it points the other way.
  assert (right * columns).sum() / right.sum() < CELL / 2 < (left * columns).sum() / left.sum()
