"""A finer mesh of the same surface."""

import numpy as np
import pytest

from umr_jax.geometry.subdivision import parents, refine, refine_half
from umr_jax.geometry.symmetry import symmetrize
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


def test_half_a_mesh_becomes_half_of_the_finer_one(rng):
  coarse, fine = build(1), build(2)
  half = rng.normal(size=(4, coarse.num_half, 3)).astype(np.float32)
  found = refine_half(half, coarse, fine)
  assert found.dtype == np.float32
  for one, other in zip(half, found, strict=True):
    whole = np.asarray(symmetrize(one, num_center=coarse.num_center))
    expected = refine(whole, coarse, fine)
    np.testing.assert_allclose(
      symmetrize(other, num_center=fine.num_center), expected, rtol=1e-5, atol=1e-6
    )


def test_squares_stay_positive(rng):
  coarse, fine = build(0), build(1)
  squares = rng.uniform(1.0, 2.0, size=(coarse.num_half, 3)).astype(np.float32)
  found = refine_half(squares, coarse, fine, squares=True)
  assert (found[fine.num_center :] > 0.0).all() and (found < 2.0).all()
  # One of them, by hand: the middle of an edge across the mirror plane, between a vertex and the
  # mirror image of another.
  ends = parents(coarse, fine)[: fine.num_half]
  crossing = np.flatnonzero((ends[:, 0] < coarse.num_half) & (ends[:, 1] >= coarse.num_half))
  at = crossing[0]
  mirrored = ends[at, 1] - (coarse.num_half - coarse.num_center)
  expected = 0.5 * (squares[ends[at, 0]] + squares[mirrored])
  np.testing.assert_allclose(found[at], expected, rtol=1e-6)
