"""Keypoint transfer: a point goes where its face, or its vertex, is in the other picture."""

import numpy as np
import pytest

from umr_jax.geometry.topology import build_topology
from umr_jax.predict.reconstruction import Reconstruction
from umr_jax.predict.transfer import by_camera, by_flow, transfer_keypoints

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
    box=box,
    silhouette=inside.astype(np.float32),
    part_probs=None,
    texture=np.zeros((*flow.shape[:2], 3), np.uint8),
    flow=flow,
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


def test_by_flow_matches_the_formula_of_one_point(rng):
  source, target = rng.uniform(-1, 1, (2, 30, 4, 2))
  point = source[7].mean(axis=0)
  source[7] = point + 0.005 * rng.normal(size=(4, 2))
  moved, confidence = by_flow(point[None], source_flow=source, target_flow=target)
  sigma = 3 / 128
  scores = []
  for face in source:
    total = 0.0
    for texel in face:
      distance = np.hypot(*(texel - point))
      total += np.exp(-(distance**2) / (2 * sigma**2)) if distance <= 3 * sigma else 0.0
    scores.append(total / 4)
  assert int(np.argmax(scores)) == 7
  np.testing.assert_allclose(moved[0], target[7].mean(axis=0))
  np.testing.assert_allclose(confidence[0], max(scores))


def test_a_point_that_no_face_samples_takes_the_nearest_without_confidence():
  source = np.zeros((3, 4, 2)) + np.array([-0.9, 0.0, 0.4])[:, None, None]
  target = np.arange(24.0).reshape(3, 4, 2)
  moved, confidence = by_flow(np.array([[0.9, 0.9]]), source_flow=source, target_flow=target)
  np.testing.assert_allclose(moved[0], target[2].mean(axis=0))
  assert confidence[0] == 0


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
  silhouette = np.zeros((8, 8))
  silhouette[2, 5] = 0.01
  vertices = rng.uniform(-1, 1, (20, 2))
  moved, sure = by_camera(
    vertices[:3],
    source_vertices=vertices,
    target_vertices=rng.uniform(-1, 1, (20, 2)),
    target_silhouette=silhouette,
  )
  np.testing.assert_allclose(moved, [[(2 * 5 + 1 - 8) / 8, (2 * 2 + 1 - 8) / 8]] * 3)
  target = rng.uniform(-1, 1, (20, 2))
  moved, doubt = by_camera(
    vertices[:3],
    source_vertices=vertices,
    target_vertices=target,
    target_silhouette=np.zeros((8, 8)),
  )
  np.testing.assert_allclose(moved, target[:3])
  assert (doubt == 0).all()
  assert (sure > 0).any()


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
  with pytest.raises(ValueError, match="different meshes"):
    transfer_keypoints(rec, make(camera=camera(), flow=flow(), level=2), np.zeros((1, 2)))
