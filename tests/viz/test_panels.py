"""Panels: the cells are where they should be and show what they should."""

import numpy as np
import pytest

from umr_jax.geometry.topology import build_topology
from umr_jax.viz import panels as viz

B, S, CELL = 2, 32, 48


@pytest.fixture(scope="module")
def topology():
  return build_topology(1, texels_per_side=2, symmetric_texture=True)


@pytest.fixture
def panel_arguments(topology, rng):
  camera = np.array([0.7, 0.0, 0.0, 0.70710678, 0.70710678, 0.0, 0.0], np.float32)
  flow = np.zeros((B, 16, 32, 2), np.float32)
  return dict(
    images=np.broadcast_to(
      np.array([[0.9, 0.1, 0.1], [0.1, 0.1, 0.9]], np.float32)[:, None, None], (B, S, S, 3)
    ),
    masks=np.broadcast_to(np.float32([0.0, 1.0])[:, None, None], (B, S, S)),
    vertices=np.broadcast_to(topology.sphere, (B, *topology.sphere.shape)),
    cameras=np.broadcast_to(camera, (B, 7)),
    flow_maps=flow,
    template=topology.sphere,
    topology=topology,
  )


def cell(panel, row, column, head):
  top, left = head + row * (CELL + 2), 2 + column * (CELL + 2)
  return panel[top : top + CELL, left : left + CELL]


def test_the_panel_shows_each_image_in_its_row(panel_arguments, monkeypatch):
  monkeypatch.setattr(viz, "PANEL_CELL", CELL)
  panel = viz.training_panel(**panel_arguments)
  assert panel.dtype == np.uint8
  assert panel.shape[1] == 7 * (CELL + 2) + 2
  head = 16
  middle = slice(CELL // 2 - 3, CELL // 2 + 3)
  red, blue = (np.array(c) * 255 for c in ([0.9, 0.1, 0.1], [0.1, 0.1, 0.9]))
  for row, color in ((0, red), (1, blue)):
    np.testing.assert_allclose(
      cell(panel, row, 0, head)[middle, middle].mean((0, 1)), color, atol=2
    )
    for column in (3, 4, 5):  # the texture samples the image's middle
      shown = cell(panel, row, column, head)[middle, middle].mean((0, 1))
      np.testing.assert_allclose(shown, color, atol=3)
  assert cell(panel, 0, 1, head).max() == 0
  assert cell(panel, 1, 1, head).min() == 255
  corner = cell(panel, 0, 3, head)[:4, :4]
  assert corner.min() == 255  # nothing there
  # The template's row: four images, then nothing.
  last = panel[-CELL - 2 : -2]
  assert (last[:, 2 : 2 + CELL] < 200).any()
  assert last[:, 2 + 4 * (CELL + 2) :].min() == 255


def test_overlay_draws_the_outline_and_dims_the_outside():
  image = np.full((16, 16, 3), 0.8, np.float32)
  silhouette = np.zeros((16, 16), np.float32)
  silhouette[4:12, 4:12] = 1.0
  shown = viz.overlay(image, silhouette)
  np.testing.assert_allclose(shown[8, 8], 0.8, rtol=1e-6)
  np.testing.assert_allclose(shown[0, 0], 0.36, rtol=1e-5)
  outline = (np.abs(shown - np.float32([1.0, 0.35, 0.1])) < 1e-6).all(-1)
  assert 24 <= outline.sum() <= 36


def test_a_strip_has_a_cell_for_each_image():
  views = [np.ones((20, 20, 4), np.float32)] * 3
  strip = viz.prediction_strip(
    np.zeros((S, S, 3), np.float32), np.ones((S, S)), views, azimuths=(90, 180, 270), cell=CELL
  )
  assert strip.shape[1] == 5 * (CELL + 2) + 2
  assert strip.dtype == np.uint8


def test_part_maps_have_a_colour_for_each_part():
  labels = np.arange(12).reshape(3, 4) % 5
  colors = viz.part_map(np.eye(5, dtype=np.float32)[labels])
  assert colors.shape == (3, 4, 3)
  assert len(np.unique(colors.reshape(-1, 3), axis=0)) == 5
