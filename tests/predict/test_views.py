"""Views: the right side up, straight alpha, and the colours of the texture."""

import numpy as np
import pytest

from umr_jax.geometry.topology import build_topology
from umr_jax.predict import views
from umr_jax.predict.export import textured_mesh

SIZE = 48
# Seen from the side, z up: the camera that the network starts from.
UPRIGHT = np.array([0.7, 0.0, 0.0, 0.70710678, 0.70710678, 0.0, 0.0], np.float32)


@pytest.fixture(scope="module")
def topology():
  return build_topology(2, texels_per_side=2, symmetric_texture=True)


def one_view(vertices, camera, texels, topology):
  return views.render_views(vertices[None], camera[None], texels[None], topology, image_size=SIZE)[
    0
  ]


def test_a_sphere_is_a_disc_of_its_colour_with_straight_alpha(topology):
  texels = np.broadcast_to(np.array([0.9, 0.5, 0.2], np.float32), (topology.num_faces, 4, 3))
  view = one_view(topology.sphere, UPRIGHT, texels, topology)
  assert view.shape == (SIZE, SIZE, 4)
  assert view[..., 3].mean() == pytest.approx(np.pi * 0.7**2 / 4, rel=0.04)
  # Straight alpha: half-covered pixels have the full colour.
  edge = (view[..., 3] > 0.05) & (view[..., 3] < 0.95)
  assert edge.any()
  np.testing.assert_allclose(view[edge][:, :3], [[0.9, 0.5, 0.2]] * edge.sum(), atol=2e-3)
  assert (view[view[..., 3] == 0] == 0).all()


def test_views_over_white_leave_it_alone_outside(topology):
  texels = np.full((topology.num_faces, 4, 3), 0.25, np.float32)
  view = one_view(topology.sphere, UPRIGHT, texels, topology)
  shown = views.over_white(view)
  np.testing.assert_allclose(shown[0, 0], 1.0)
  np.testing.assert_allclose(shown[SIZE // 2, SIZE // 2], 0.25, atol=1e-3)


def test_shading_is_brighter_above_and_normals_turn_with_the_camera(topology):
  view = views.shaded_views(topology.sphere[None], UPRIGHT[None], topology, image_size=SIZE)[0]
  column = view[:, SIZE // 2, 0]
  inside = np.flatnonzero(view[:, SIZE // 2, 3] > 0.99)
  assert column[inside[2]] > column[inside[-3]] + 0.3
  upside_down = UPRIGHT * np.array([1, 1, 1, 1, -1, 1, 1], np.float32)
  turned = views.shaded_views(topology.sphere[None], upside_down[None], topology, image_size=SIZE)[
    0
  ]
  assert np.abs(turned - view).mean() < 0.005  # a sphere is lit alike from all sides


def test_texels_of_a_map_are_held_inside_its_border(topology):
  bright = np.ones((16, 32, 2), np.float32)
  np.testing.assert_allclose(views.texture_texels(bright, topology), 1.0, rtol=1e-6)


def test_the_exported_texture_shows_what_the_renderer_shows():
  """Colours at faces' centres in the image, against the GLB's texture at the same faces."""
  fine = build_topology(2, texels_per_side=4, symmetric_texture=True)
  rows, columns = np.mgrid[:64, :128] / np.array([64.0, 128.0])[:, None, None]
  waves = 0.5 + 0.4 * np.stack(
    [np.sin(5 * rows), np.sin(11 * columns), np.cos(7 * rows + 3 * columns)], -1
  )
  texture = np.round(255 * waves).astype(np.uint8)
  texels = views.texture_texels(texture.astype(np.float32) / 255, fine)
  size = 256
  for tilt in ([0.0, 0.0], [0.25, 0.1]):
    camera = UPRIGHT + np.array([0, 0, 0, *tilt, 0.2, -0.1], np.float32)
    camera[3:] /= np.linalg.norm(camera[3:])
    view = views.render_views(fine.sphere[None], camera[None], texels[None], fine, image_size=size)[
      0
    ]
    mesh = textured_mesh(fine.sphere, texture, fine)
    compared = _compare(mesh, fine, camera, view, size)
    assert len(compared) > 100
    assert np.median(compared) < 0.02
    assert np.quantile(compared, 0.98) < 0.08


def _compare(mesh, topology, camera, view, size):
  """Largest channel difference at the centre of each face that looks at the viewer."""
  w, x, y, z = camera[3:]
  rotation = np.array(
    [
      [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
      [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
      [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
  )
  centres = mesh.vertices[mesh.faces].mean(axis=1) @ rotation.T
  places = np.floor((camera[0] * centres[:, :2] + 1) / 2 * size).astype(int)
  # The same centre in the texture: uv, v upwards, to the nearest pixel.
  image = np.asarray(mesh.visual.material.baseColorTexture) / 255.0
  uv = mesh.visual.uv[mesh.faces].mean(axis=1)
  column = np.floor(uv[:, 0] * image.shape[1]).astype(int) % image.shape[1]
  row = np.clip(np.floor((1 - uv[:, 1]) * image.shape[0]).astype(int), 0, image.shape[0] - 1)
  front = centres[:, 2] < -0.3
  shown = view[places[front, 1], places[front, 0], :3]
  return np.abs(shown - image[row[front], column[front]]).max(axis=-1)


def test_the_template_fills_its_four_images(topology):
  four = views.template_views(0.2 * topology.sphere, topology, cell=32)
  assert four.shape == (4, 32, 32, 4)
  np.testing.assert_allclose(four[..., 3].mean(axis=(1, 2)), np.pi * 0.95**2 / 4, rtol=0.05)
