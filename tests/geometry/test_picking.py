"""Picking: what is hit comes back, the nearer surface wins, and beside the mesh the outline."""

import numpy as np

from umr_jax.geometry.picking import pick
from umr_jax.geometry.topology import build_topology


def sphere():
  topology = build_topology(2, texels_per_side=2, symmetric_texture=True)
  return np.asarray(topology.sphere, np.float64), topology.outward_faces


def test_points_on_visible_faces_are_found_again(rng):
  vertices, faces = sphere()
  corners = vertices[faces]
  normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
  near = faces[normals[:, 2] < -1e-3]  # depth grows away from the viewer
  chosen = near[rng.integers(0, len(near), 200)]
  weights = rng.dirichlet(np.ones(3), 200)
  truth = np.einsum("nk,nkc->nc", weights, vertices[chosen])
  found = pick(truth[:, :2], vertices, faces)
  np.testing.assert_allclose(found.at(vertices), truth, atol=1e-9)
  np.testing.assert_array_equal(found.distance, 0.0)
  np.testing.assert_allclose(found.weights.sum(axis=1), 1.0, atol=1e-12)
  assert found.weights.min() >= 0.0


def test_beside_the_mesh_the_nearest_point_of_its_outline_is_taken(rng):
  """Against every side of every face, densely sampled."""
  vertices, faces = sphere()
  angle = rng.uniform(0.0, 2.0 * np.pi, 20)
  points = rng.uniform(1.05, 1.5, (20, 1)) * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
  found = pick(points, vertices, faces)
  share = np.linspace(0.0, 1.0, 201)[:, None, None, None]
  starts, ends = vertices[faces], vertices[np.roll(faces, -1, axis=1)]
  samples = (share * starts + (1.0 - share) * ends)[..., :2].reshape(-1, 2)
  for n, point in enumerate(points):
    nearest = np.linalg.norm(samples - point, axis=-1).min()
    assert abs(found.distance[n] - nearest) < 1e-3
    away = np.linalg.norm(found.at(vertices)[n, :2] - point)
    assert np.isclose(away, found.distance[n])


def test_a_face_seen_from_its_edge_is_never_hit():
  vertices = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 1.0], [0.5, 0.0, 2.0], [0.0, 0.1, 3.0]])
  faces = np.array([[0, 1, 2], [0, 1, 3]])
  found = pick(np.array([[0.2, 0.05], [0.5, 0.0]]), vertices, faces)
  np.testing.assert_array_equal(found.corners[0], [0, 1, 3])
  assert np.isfinite(found.weights).all() and np.isfinite(found.distance).all()


def test_no_points():
  vertices, faces = sphere()
  assert pick(np.zeros((0, 2)), vertices, faces).at(vertices).shape == (0, 3)
