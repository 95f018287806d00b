"""The distance between surfaces: closed forms and a loop over points."""

import numpy as np
import pytest

from umr_jax.eval.shape_error import sample_surface, surface_errors
from umr_jax.geometry.icosphere import icosphere
from umr_jax.geometry.voxels import Mesh


def sphere(radius=1.0):
  vertices, faces = icosphere(3)
  return Mesh(vertices * radius, faces)


def test_equal_meshes_are_nothing_apart():
  assert surface_errors(predicted=sphere(), true=sphere()) == (0.0, 1.0)


def test_parallel_sheets_are_their_distance_apart_in_box_diagonals():
  corners = np.array([[0, 0, 0], [3, 0, 0], [3, 4, 0], [0, 4, 0]], float)
  faces = np.array([[0, 1, 2], [0, 2, 3]])
  shift = np.array([0, 0, 2.0])
  apart = surface_errors(predicted=Mesh(corners + shift, faces), true=Mesh(corners, faces))[0]
  assert apart == pytest.approx(2.0 / 5.0)  # the diagonal of 3 x 4 is 5


@pytest.mark.parametrize(("gap", "score"), [(0.09, 1.0), (0.11, 0.0)])
def test_sheets_are_close_within_a_fiftieth_of_the_diagonal(gap, score):
  corners = np.array([[0, 0, 0], [3, 0, 0], [3, 4, 0], [0, 4, 0]], float)
  faces = np.array([[0, 1, 2], [0, 2, 3]])
  lifted = Mesh(corners + np.array([0, 0, gap]), faces)
  assert surface_errors(predicted=lifted, true=Mesh(corners, faces))[1] == score


def test_concentric_spheres_are_the_gap_of_their_radii_apart():
  apart = surface_errors(predicted=sphere(0.8), true=sphere())[0]
  assert apart * np.sqrt(12) == pytest.approx(0.2, abs=0.01)


def test_distances_match_a_loop_over_points(monkeypatch):
  monkeypatch.setattr("umr_jax.eval.shape_error.POINTS", 60)
  a, b = sphere(0.8), sphere()
  first, second = (sample_surface(mesh, points=60, seed=3) for mesh in (a, b))
  there = np.mean([min(np.linalg.norm(p - q) for q in second) for p in first])
  back = np.mean([min(np.linalg.norm(p - q) for q in first) for p in second])
  diagonal = np.linalg.norm(np.ptp(b.vertices, axis=0))
  expected = (there + back) / 2 / diagonal
  found, score = surface_errors(predicted=a, true=b, seed=3)
  assert found == pytest.approx(expected)
  near = 0.02 * diagonal
  recall = np.mean([min(np.linalg.norm(p - q) for p in first) < near for q in second])
  precision = np.mean([min(np.linalg.norm(p - q) for q in second) < near for p in first])
  assert score == pytest.approx(2 * precision * recall / max(precision + recall, 1e-9))


def test_points_are_spread_evenly_by_area():
  vertices = np.array([[0, 0, 0], [3, 0, 0], [0, 1, 0], [10, 0, 0], [11, 0, 0], [10, 1, 0]], float)
  mesh = Mesh(vertices, np.array([[0, 1, 2], [3, 4, 5], [0, 0, 0]]))
  points = sample_surface(mesh, points=4000, seed=0)
  assert np.mean(points[:, 0] < 5.0) == pytest.approx(0.75, abs=0.01)
  np.testing.assert_allclose(points[points[:, 0] < 5].mean(axis=0), [1, 1 / 3, 0], atol=0.05)


def test_a_mesh_without_area_is_refused():
  with pytest.raises(ValueError, match="without finite area"):
    sample_surface(Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]])), points=5, seed=0)
