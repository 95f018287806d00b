"""Which face or vertex a keypoint lies on, against loops that follow the published protocol."""

import numpy as np
from scipy import ndimage

from umr_jax.eval.landmarks import (
  flow_scores,
  landmarks_by_camera,
  landmarks_by_flow,
  landmarks_by_surface,
  nearest_covered,
)


def heat_map(point):
  """A keypoint's map of 256 x 256 pixels, pixel by pixel."""
  column, row = (int(np.clip(np.floor((c + 1.0) / 2.0 * 256.0), 0, 255)) for c in point)
  result = np.zeros((256, 256))
  for r in range(max(row - 9, 0), min(row + 10, 256)):
    for c in range(max(column - 9, 0), min(column + 10, 256)):
      result[r, c] = np.exp(-((r - row) ** 2 + (c - column) ** 2) / 18.0)
  return result


def test_scores_are_readings_of_the_published_heat_map(rng):
  for point in rng.uniform(-1.0, 1.0, (4, 2)):
    flow = point + rng.normal(0.0, 0.05, (7, 5, 2))
    pixels = (flow + 1.0) / 2.0 * 256.0 - 0.5
    read = ndimage.map_coordinates(
      heat_map(point), [pixels[..., 1], pixels[..., 0]], order=1, mode="constant"
    )
    inside = (np.abs(flow) < 1.0 - 1.0 / 256.0).all(axis=-1).all(axis=-1)
    np.testing.assert_allclose(flow_scores(point, flow)[inside], read.mean(-1)[inside], atol=1e-12)


def test_a_keypoint_lies_on_the_face_that_samples_there(rng):
  centers = rng.uniform(-0.8, 0.8, (2, 12, 2))
  flow = centers[:, :, None] + rng.normal(0.0, 0.004, (2, 12, 4, 2))
  points, visible = flow[:, [3, 7, 1]].mean(axis=2), np.ones((2, 3), bool)
  found = landmarks_by_flow(points, visible, flow)
  np.testing.assert_array_equal(found.chosen[..., 0], [[3, 7, 1]] * 2)
  np.testing.assert_allclose(found.positions, flow.mean(axis=2))
  np.testing.assert_allclose(found.distance, 0.0, atol=1e-12)


def test_without_any_reading_the_first_face_is_taken_and_of_equal_ones_the_first():
  flow = np.stack([np.full((3, 2), place) for place in (0.9, 0.5, 0.5)])[None]
  points = np.array([[[-0.9, -0.9], [0.5, 0.5]]])
  found = landmarks_by_flow(points, np.ones((1, 2), bool), flow)
  np.testing.assert_array_equal(found.chosen[..., 0], [[0, 1]])


def test_by_camera_the_nearest_vertex_goes_to_the_nearest_covered_pixel(rng):
  vertices, points = rng.uniform(-1.2, 1.2, (2, 30, 2)), rng.uniform(-1.0, 1.0, (2, 4, 2))
  silhouettes = (rng.random((2, 16, 16)) > 0.9).astype(float)
  found = landmarks_by_camera(points, np.ones((2, 4), bool), vertices, silhouettes)
  for n in range(2):
    pixels = [
      ((2 * c + 1 - 16) / 16, (2 * r + 1 - 16) / 16)
      for r in range(16)
      for c in range(16)
      if silhouettes[n, r, c] > 0
    ]
    for k, point in enumerate(points[n]):
      distances = [np.hypot(*(v - point)) for v in vertices[n]]
      assert found.chosen[n, k, 0] == int(np.argmin(distances))
      assert np.isclose(found.distance[n, k], min(distances))
    for v, vertex in enumerate(vertices[n]):
      nearest = min(pixels, key=lambda p: np.hypot(p[0] - vertex[0], p[1] - vertex[1]))
      np.testing.assert_allclose(found.positions[n, v], nearest)


def test_without_a_silhouette_points_stay():
  points = np.array([[0.25, -0.5]])
  np.testing.assert_array_equal(nearest_covered(points, np.zeros((8, 8))), points)


def test_by_surface_a_point_between_vertices_goes_where_they_go(rng):
  """Two sheets: the nearer one's point is taken, and carried by its own weights."""
  sheet = np.array([[-0.8, -0.8], [0.8, -0.8], [0.0, 0.9]])
  near, far = np.c_[sheet, np.full(3, 4.0)], np.c_[sheet[::-1], np.full(3, 6.0)]
  source, target = np.concatenate([far, near]), rng.uniform(-1.0, 1.0, (6, 3))
  weights = rng.dirichlet(np.ones(3), 5)
  points = np.stack([weights @ sheet, np.zeros((5, 2))])
  found = landmarks_by_surface(
    points, np.ones((2, 5), bool), np.stack([source, target]), np.array([[0, 1, 2], [3, 4, 5]])
  )
  moved = found.carried(np.array([0, 0]), np.array([0, 1]))
  np.testing.assert_allclose(moved[0], points[0], atol=1e-12)
  np.testing.assert_allclose(moved[1], weights @ target[3:, :2], atol=1e-12)
  np.testing.assert_array_equal(found.distance[0], 0.0)
