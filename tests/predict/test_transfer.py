"""Keypoint transfer: a point goes where its face, or its vertex, is in the other image."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from umr_jax.geometry.topology import build_topology
from umr_jax.predict.reconstruction import Reconstruction
from umr_jax.predict.transfer import (
  Correspondence,
  carry,
  flow_scores,
  locate,
  nearest_covered,
  transfer_keypoints,
)

SIZE = 64


def make(*, camera, flow, box=(10.0, 20.0, 110.0, 120.0), level=3):
  topology = build_topology(level, texels_per_side=2, symmetric_texture=True)
  x, y = np.meshgrid(*[(2 * np.arange(SIZE) + 1 - SIZE) / SIZE] * 2)
  inside = (x - camera[1]) ** 2 + (y - camera[2]) ** 2 < camera[0] ** 2
  return Reconstruction(
    vertices=topology.sphere,
    faces=topology.outward_faces,
    camera=camera,
    cameras=camera[None],
    camera_probs=np.ones(1, np.float32),
    view_probs=None,
    view_cameras=None,
    box=box,
    silhouette=inside.astype(np.float32),
    part_probs=None,
    texture=np.zeros((*flow.shape[:2], 3), np.uint8),
    flow=flow,
    flow_map=flow,
    image=np.zeros((SIZE, SIZE, 3), np.float32),
    template=topology.sphere,
    topology=topology,
    step=0,
  )


def camera(azimuth=0.0, scale=0.7, tx=0.0, ty=0.0):
  """Upright, turned about the object's vertical: q = q_x(90) q_z(azimuth)."""
  half = np.radians(azimuth) / 2
  r = np.sqrt(0.5)
  quaternion = [r * np.cos(half), r * np.cos(half), -r * np.sin(half), r * np.sin(half)]
  return np.array([scale, tx, ty, *quaternion], np.float32)


def flow(scale=1.0, dx=0.0, dy=0.0):
  """The used middle half of the map spread over the whole crop, then moved."""
  v, u = np.meshgrid(
    (2 * np.arange(64) + 1 - 64) / 64, (2 * np.arange(128) + 1 - 128) / 128, indexing="ij"
  )
  return (scale * np.stack([1.8 * u + dx, 0.9 * v + dy], -1)).astype(np.float32)


@pytest.fixture
def points():
  return np.array([[45.0, 60.0], [60.5, 70.5], [80.0, 50.0]])


def test_a_point_comes_back_to_itself_by_flow(points):
  rec = make(camera=camera(), flow=flow())
  moved, confidence = transfer_keypoints(rec, rec, points)
  # To the centre of its face: faces are about 8 of the box's 100 pixels wide.
  assert np.linalg.norm(moved - points, axis=-1).max() < 5.0
  assert ((confidence > 0) & (confidence <= 1)).all()


def test_by_flow_follows_the_flow_and_both_boxes(points):
  source = make(camera=camera(), flow=flow())
  target = make(camera=camera(), flow=flow(0.5, 0.2, -0.1), box=(0.0, 0.0, 50.0, 50.0))
  moved, _ = transfer_keypoints(source, target, points)
  back, _ = transfer_keypoints(source, source, points)
  crop = (back - [10, 20]) / 50 - 1
  expected = (0.5 * (crop + np.array([0.2, -0.1])) + 1) * 25
  np.testing.assert_allclose(moved, expected, atol=1e-3)


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


def bare(*, vertices=None, faces=None, face_positions=None, covered=None):
  """What transfer reads of an image, made by hand."""
  vertices = np.zeros((1, 3)) if vertices is None else vertices
  covered = np.zeros((16, 16), bool) if covered is None else covered
  result = Correspondence(
    template=vertices, vertices=vertices, faces=faces, covered=np.packbits(covered, axis=-1)
  )
  if face_positions is not None:
    object.__setattr__(result, "face_flow", lambda: face_positions)
  return result


def test_a_keypoint_lies_on_the_face_that_samples_there(rng):
  centers = rng.uniform(-0.8, 0.8, (12, 2))
  flow = centers[:, None] + rng.normal(0.0, 0.004, (12, 4, 2))
  points = flow[[3, 7, 1]].mean(axis=1)
  found = locate(points, bare(face_positions=flow), "flow")
  np.testing.assert_array_equal(found.elements[:, 0], [3, 7, 1])
  np.testing.assert_allclose(found.distance, 0.0, atol=1e-12)
  moved, confidence = carry(found, bare(face_positions=-flow), "flow")
  np.testing.assert_allclose(moved, -points)
  np.testing.assert_allclose(confidence, 1.0)


def test_without_any_reading_the_first_face_is_taken_and_of_equal_ones_the_first():
  flow = np.stack([np.full((3, 2), place) for place in (0.9, 0.5, 0.5)])
  points = np.array([[-0.9, -0.9], [0.5, 0.5]])
  found = locate(points, bare(face_positions=flow), "flow")
  np.testing.assert_array_equal(found.elements[:, 0], [0, 1])
  _, confidence = carry(found, bare(face_positions=flow), "flow")
  assert confidence[0] < 1e-6 and confidence[1] == 1.0


def test_a_mesh_without_a_flow_carries_nothing_by_flow():
  with pytest.raises(ValueError, match="without a flow map"):
    locate(np.zeros((1, 2)), bare(), "flow")


@pytest.mark.parametrize("method", ["camera", "mesh"])
def test_the_nearest_vertex_goes_to_the_nearest_covered_pixel(rng, method):
  source, target = rng.uniform(-1.2, 1.2, (2, 30, 3))
  points, covered = rng.uniform(-1.0, 1.0, (4, 2)), rng.random((16, 16)) > 0.9
  found = locate(points, bare(vertices=source), method)
  moved, _ = carry(found, bare(vertices=target, covered=covered), method)
  pixels = [
    ((2 * c + 1 - 16) / 16, (2 * r + 1 - 16) / 16)
    for r in range(16)
    for c in range(16)
    if covered[r, c]
  ]
  for k, point in enumerate(points):
    distances = [np.hypot(*(v[:2] - point)) for v in source]
    chosen = int(np.argmin(distances))
    assert found.elements[k, 0] == chosen and np.isclose(found.distance[k], min(distances))
    vertex = target[chosen]
    nearest = min(pixels, key=lambda p, v=vertex: np.hypot(p[0] - v[0], p[1] - v[1]))
    np.testing.assert_allclose(moved[k], nearest)


def test_by_surface_a_point_between_vertices_goes_where_they_go(rng):
  """Two sheets: the nearer one's point is taken, and carried by its own weights."""
  sheet = np.array([[-0.8, -0.8], [0.8, -0.8], [0.0, 0.9]])
  near, far = np.c_[sheet, np.full(3, 4.0)], np.c_[sheet[::-1], np.full(3, 6.0)]
  source, target = np.concatenate([far, near]), rng.uniform(-1.0, 1.0, (6, 3))
  weights = rng.dirichlet(np.ones(3), 5)
  faces = np.array([[0, 1, 2], [3, 4, 5]])
  own, other = bare(vertices=source, faces=faces), bare(vertices=target, faces=faces)
  found = locate(weights @ sheet, own, "surface")
  np.testing.assert_allclose(carry(found, own, "surface")[0], weights @ sheet, atol=1e-12)
  moved, _ = carry(found, other, "surface")
  np.testing.assert_allclose(moved, weights @ target[3:, :2], atol=1e-12)
  np.testing.assert_array_equal(found.distance, 0.0)


def test_a_point_comes_back_to_itself_by_camera(points):
  rec = make(camera=camera(), flow=flow())
  moved, confidence = transfer_keypoints(rec, rec, points, method="camera")
  # To the nearest vertex, then to the nearest pixel of 100 / 64.
  assert np.linalg.norm(moved - points, axis=-1).max() < 5.0
  assert (confidence > 0.5).all()


def test_by_camera_follows_both_cameras():
  source = make(camera=camera(), flow=flow())
  target = make(camera=camera(scale=0.35, tx=0.3, ty=-0.2), flow=flow())
  points = np.array([[60.0, 70.0], [85.0, 60.0]])
  moved, _ = transfer_keypoints(source, target, points, method="camera")
  crop = (points - [10, 20]) / 50 - 1
  expected = ((crop * 0.5 + [0.3, -0.2]) + 1) * 50 + [10, 20]
  assert np.linalg.norm(moved - expected, axis=-1).max() < 4.0


def test_by_camera_ends_on_the_silhouette(rng):
  covered = np.zeros((8, 8), bool)
  covered[2, 5] = True
  source, target = rng.uniform(-1, 1, (2, 20, 3))
  found = locate(source[:3, :2], bare(vertices=source), "camera")
  moved, sure = carry(found, bare(vertices=target, covered=covered), "camera")
  np.testing.assert_allclose(moved, [[(2 * 5 + 1 - 8) / 8, (2 * 2 + 1 - 8) / 8]] * 3)
  moved, doubt = carry(found, bare(vertices=target, covered=~covered & False), "camera")
  np.testing.assert_allclose(moved, target[:3, :2])
  assert (doubt == 0).all()
  assert (sure > 0).any()
  np.testing.assert_array_equal(nearest_covered(moved, np.zeros((8, 8))), moved)


def test_a_point_comes_back_to_itself_by_surface(points):
  rec = make(camera=camera(), flow=flow())
  moved, confidence = transfer_keypoints(rec, rec, points, method="surface")
  np.testing.assert_allclose(moved, points, atol=1e-3)
  np.testing.assert_allclose(confidence, 1.0)


def test_by_surface_follows_the_object_around_until_it_is_hidden():
  """A point of the unit sphere that faces the camera, seen from 40 and from 150 degrees further."""
  source = make(camera=camera(), flow=flow())
  centre = np.array([[60.0, 70.0]])
  for turn, shown in ((40.0, True), (150.0, False)):
    target = make(camera=camera(azimuth=turn), flow=flow())
    moved, confidence = transfer_keypoints(source, target, centre, method="surface")
    away = abs(moved[0, 0] - 60.0) / 50.0
    assert away == pytest.approx(0.7 * np.sin(np.radians(turn)), abs=0.01)
    assert moved[0, 1] == pytest.approx(70.0, abs=0.5)
    assert (confidence[0] > 0.9) == shown
    assert confidence[0] > 0.0


def test_by_surface_a_point_beside_the_mesh_takes_its_outline():
  rec = make(camera=camera(), flow=flow())
  moved, confidence = transfer_keypoints(rec, rec, np.array([[109.0, 70.0]]), method="surface")
  assert np.linalg.norm(moved[0] - [60.0 + 0.7 * 50.0, 70.0]) < 1.0
  assert confidence[0] < 0.2


@pytest.mark.parametrize(
  ("points", "method", "complaint"),
  [
    (np.zeros((3,)), "flow", r"\(3,\)"),
    (np.full((2, 2), np.nan), "flow", "finite"),
    (np.zeros((2, 2)), "magic", "'magic'"),
  ],
)
def test_unusable_arguments_are_refused(points, method, complaint):
  rec = make(camera=camera(), flow=flow())
  with pytest.raises(ValueError, match=complaint):
    transfer_keypoints(rec, rec, points, method=method)


def test_no_points_and_other_meshes():
  rec = make(camera=camera(), flow=flow())
  moved, confidence = transfer_keypoints(rec, rec, np.zeros((0, 2)))
  assert (moved.shape, confidence.shape) == ((0, 2), (0,))
  with pytest.raises(ValueError, match="one checkpoint"):
    transfer_keypoints(rec, make(camera=camera(), flow=flow(), level=2), np.zeros((1, 2)))
  # The same mesh, but what a vertex stands for was learned anew.
  stranger = dataclasses.replace(rec, template=1.1 * rec.template)
  with pytest.raises(ValueError, match="one checkpoint"):
    transfer_keypoints(rec, stranger, np.zeros((1, 2)))
