"""icosphere: counts, measures and exact symmetry; a finer mesh of the same surface."""

import numpy as np
import pytest

from umr_jax.geometry.icosphere import icosphere, parents, refine
from umr_jax.geometry.topology import build_topology

LEVELS = range(5)


def _edge_lengths(vertices, faces):
  edges = np.unique(np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)), axis=0)
  return np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=-1)


def _areas(vertices, faces):
  a, b, c = np.moveaxis(vertices[faces], 1, 0)
  return 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=-1)


@pytest.mark.parametrize("level", LEVELS)
def test_counts_follow_the_level(level):
  vertices, faces = icosphere(level)
  assert vertices.shape == (10 * 4**level + 2, 3)
  assert faces.shape == (20 * 4**level, 3)
  assert faces.dtype == np.int32
  assert len(_edge_lengths(vertices, faces)) == 30 * 4**level


@pytest.mark.parametrize("level", LEVELS)
def test_vertices_are_on_the_unit_sphere_and_differ(level):
  vertices, _ = icosphere(level)
  np.testing.assert_allclose(np.linalg.norm(vertices, axis=-1), 1.0, rtol=1e-15)
  assert len(np.unique(vertices, axis=0)) == len(vertices)


@pytest.mark.parametrize("level", LEVELS)
def test_every_face_winds_outward(level):
  vertices, faces = icosphere(level)
  assert (np.linalg.det(vertices[faces]) > 0.0).all()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("axis", range(3))
def test_mirror_images_match_to_the_last_bit(level, axis):
  vertices, _ = icosphere(level)
  mirrored = vertices.copy()
  mirrored[:, axis] *= -1.0
  assert {tuple(v) for v in vertices.tolist()} == {tuple(v) for v in mirrored.tolist()}


def test_the_measures_are_those_of_the_published_sphere():
  # Refined on the flat polyhedron and projected once. With a projection after every subdivision
  # the edges would be 0.138 to 0.165 long.
  vertices, faces = icosphere(3)
  lengths = _edge_lengths(vertices, faces)
  np.testing.assert_allclose(
    [lengths.min(), lengths.mean(), lengths.max()], [0.1195, 0.1501, 0.1646], atol=5e-5
  )
  areas = _areas(vertices, faces)
  np.testing.assert_allclose(areas.max() / areas.min(), 1.73, atol=5e-3)
  np.testing.assert_allclose(areas.sum(), 12.506, atol=5e-4)
  np.testing.assert_allclose(np.abs(vertices[:, 1]).mean(), 0.4982, atol=5e-5)


@pytest.mark.parametrize("level", [-1, 5, 1.0, True, "3"])
def test_other_levels_are_refused_with_the_range(level):
  with pytest.raises(ValueError, match="0 to 4"):
    icosphere(level)


def build(level):
  return build_topology(level, texels_per_side=1, symmetric_texture=True)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_finer_sphere_is_the_coarse_one_with_its_edges_halved(level):
  coarse, fine = build(level), build(level + 1)
  vertices = refine(coarse.sphere, coarse, fine)
  assert vertices.shape == fine.sphere.shape and vertices.dtype == np.float32
  length = np.linalg.norm(vertices, axis=-1, keepdims=True)
  # The sphere's own middles lie on the flat icosahedron, and are moved outward at the end.
  np.testing.assert_allclose(vertices / length, fine.sphere, atol=0.05)
  ends = parents(coarse, fine)
  kept = ends[:, 0] == ends[:, 1]
  assert sorted(ends[kept, 0]) == list(range(len(coarse.sphere)))
  edges = {tuple(edge) for edge in np.sort(ends[~kept], axis=-1).tolist()}
  assert edges == {tuple(edge) for edge in coarse.edges.tolist()}


def test_symmetry_is_kept(rng):
  coarse, fine = build(1), build(2)
  half = rng.normal(size=(coarse.num_half, 3))
  half[: coarse.num_center, 1] = 0.0
  left = half[coarse.num_center :] * [1, -1, 1]
  vertices = refine(np.concatenate([half, left]), coarse, fine)
  right = vertices[fine.num_center : fine.num_half]
  np.testing.assert_allclose(vertices[fine.num_half :], right * [1, -1, 1])
  with pytest.raises(ValueError, match="does not follow"):
    refine(vertices, coarse, build(3))
