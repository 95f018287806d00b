"""A finer mesh of the same surface."""

import numpy as np
import pytest

from umr_jax.geometry.subdivision import parents, refine
from umr_jax.geometry.topology import build_topology


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
