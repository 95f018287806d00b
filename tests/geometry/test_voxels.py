"""Solids on a voxel grid: analytic shapes, open meshes, and a slow flood fill."""

import time

import numpy as np
import pytest

from umr_jax.geometry.icosphere import icosphere
from umr_jax.geometry.voxels import Mesh, occupancy, solid_iou, surface_points


def sphere(radius=1.0, center=(0.0, 0.0, 0.0), level=3):
  vertices, faces = icosphere(level)
  return Mesh(vertices * radius + np.asarray(center), faces)


def box(low, high):
  vertices = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
  quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
  faces = [f for a, b, c, d in quads for f in ((a, b, c), (a, c, d))]
  return Mesh(vertices * (np.asarray(high) - low) + low, np.array(faces))


def test_equal_meshes_overlap_fully_and_distant_ones_not_at_all():
  assert solid_iou(sphere(), sphere()) == 1.0
  assert solid_iou(sphere(), sphere(center=(5.0, 0.0, 0.0))) == 0.0


def test_the_order_of_the_meshes_and_their_winding_make_no_difference():
  a, b = sphere(), box([-0.5, -0.6, -0.7], [0.9, 0.5, 0.6])
  turned = Mesh(b.vertices, b.faces[:, ::-1])
  assert solid_iou(a, b) == solid_iou(b, a) == solid_iou(a, turned)


@pytest.mark.parametrize("radius", [0.5, 0.8, 0.95])
def test_concentric_spheres_overlap_by_the_ratio_of_their_volumes(radius):
  # Every solid is thicker by the half voxel (1/30) that its surface voxels reach beyond it.
  grown = (radius + 1 / 30) ** 3 / (1 + 1 / 30) ** 3
  assert abs(solid_iou(sphere(), sphere(radius)) - grown) < 0.03


def test_boxes_on_the_grid_overlap_as_computed_by_hand():
  # 30 voxels a side: the larger fills 30^3, the smaller 15 x 30 x 30 and the layer it touches.
  iou = solid_iou(box([0.0] * 3, [30.0] * 3), box([0.5] * 3, [14.5, 29.5, 29.5]))
  assert iou == pytest.approx(15 / 30)


def test_a_hole_smaller_than_a_voxel_does_not_empty_a_solid():
  vertices, faces = icosphere(4)
  open_mesh = Mesh(vertices, np.delete(faces, [5], axis=0))
  assert solid_iou(open_mesh, sphere()) > 0.95
  # A missing cap some four voxels wide lets the flood in: only the surface is left.
  far = (np.linalg.norm(vertices - vertices[7], axis=1) > 0.15)[faces].all(axis=1)
  assert solid_iou(Mesh(vertices, faces[far]), sphere()) < 0.5


def test_a_thin_sheet_stays_a_sheet():
  sheet = Mesh(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float), np.array([[0, 1, 2]]))
  assert solid_iou(sheet, sheet) == 1.0


def test_filling_matches_a_flood_by_hand():
  n = 12
  mesh = box([2.3, 2.6, 3.1], [8.4, 9.2, 7.7])
  filled = occupancy(mesh, origin=np.zeros(3), voxel=1.0, resolution=n)
  surface = np.zeros((n, n, n), bool)
  for x, y, z in surface_points(mesh, spacing=0.1):
    surface[int(x), int(y), int(z)] = True
  outside, stack = np.zeros_like(surface), [(0, 0, 0)]
  while stack:
    cell = stack.pop()
    if min(cell) < 0 or max(cell) >= n or surface[cell] or outside[cell]:
      continue
    outside[cell] = True
    for axis in range(3):
      stack += [tuple(c + step * (i == axis) for i, c in enumerate(cell)) for step in (-1, 1)]
  np.testing.assert_array_equal(filled, ~outside)
  assert filled.sum() == 7 * 8 * 5


def test_a_turned_closed_mesh_never_leaks(rng):
  # Long thin faces in any direction must not let the flood through.
  for _ in range(30):
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    scale = rng.uniform(0.2, 1.0, 3)
    mesh = Mesh((box([-1.0] * 3, [1.0] * 3).vertices * scale) @ q, box([0.0] * 3, [1.0] * 3).faces)
    size = np.ptp(mesh.vertices, axis=0).max() / 30
    filled = (
      occupancy(mesh, origin=-np.full(3, 16 * size), voxel=size, resolution=32).sum() * size**3
    )
    assert filled > 0.99 * 8 * np.prod(scale)


def test_points_cover_faces_within_the_spacing(rng):
  mesh = Mesh(rng.normal(size=(3, 3)), np.array([[0, 1, 2]]))
  points = surface_points(mesh, spacing=0.1)
  for weights in rng.dirichlet(np.ones(3), size=50):
    assert np.linalg.norm(points - weights @ mesh.vertices, axis=1).min() < 0.1


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_bad_meshes_are_refused(broken):
  vertices, faces = icosphere(1)
  with pytest.raises(ValueError, match="finite"):
    solid_iou(sphere(), Mesh(np.where(vertices > 0.9, broken, vertices), faces))
  with pytest.raises(ValueError, match="0 faces"):
    solid_iou(sphere(), Mesh(vertices, faces[:0]))


def test_one_comparison_takes_far_less_than_a_tenth_of_a_second():
  a, b = sphere(), sphere(0.7)
  began = time.perf_counter()
  for _ in range(5):
    solid_iou(a, b)
  assert (time.perf_counter() - began) / 5 < 0.1
