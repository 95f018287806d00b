"""build_topology: connectivity against naive loops, symmetry rows, published values."""

import dataclasses
from collections import Counter

import jax
import numpy as np
import pytest

from umr_jax.geometry.topology import build_topology

LEVELS = range(5)


def _build(level, symmetric_texture=True, texels_per_side=2):
  return build_topology(level, texels_per_side=texels_per_side, symmetric_texture=symmetric_texture)


@pytest.mark.parametrize("level", LEVELS)
def test_sizes(level):
  topology = _build(level)
  assert topology.num_vertices == 10 * 4**level + 2
  assert topology.num_faces == 20 * 4**level
  assert topology.edges.shape == (30 * 4**level, 2)
  assert topology.num_half == (topology.num_vertices + topology.num_center) // 2
  assert topology.level == level


def test_published_sizes():
  topology = _build(3, texels_per_side=6)
  assert topology.num_half == 337
  assert topology.texel_uv.shape == (656, 36, 2)
  assert np.bincount(topology.degrees).tolist() == [0, 0, 0, 0, 0, 12, 630]


@pytest.mark.parametrize("level", LEVELS)
def test_neighbors_are_the_ends_of_edges_padded_with_the_vertex_itself(level):
  topology = _build(level)
  expected = [set() for _ in range(topology.num_vertices)]
  for a, b in topology.edges.tolist():
    expected[a].add(b)
    expected[b].add(a)
  for vertex, ends in enumerate(expected):
    degree = topology.degrees[vertex]
    assert degree == len(ends)
    assert set(topology.neighbors[vertex, :degree].tolist()) == ends
    assert (topology.neighbors[vertex, degree:] == vertex).all()


@pytest.mark.parametrize("level", LEVELS)
def test_face_pairs_cover_every_edge_with_its_two_faces(level):
  topology = _build(level)
  assert len({tuple(edge) for edge in topology.edges.tolist()}) == 30 * 4**level
  faces = Counter(frozenset(face) for face in topology.faces.tolist())
  found = Counter()
  for a, b, left, right in topology.face_pairs.tolist():
    assert left != right
    found.update([frozenset((a, b, left)), frozenset((a, b, right))])
  # Each of a face's three edges names it once.
  assert found == Counter({face: 3 * count for face, count in faces.items()})
  np.testing.assert_array_equal(topology.face_pairs[:, :2], topology.edges)


def test_the_laplacian_of_the_sphere_has_the_published_value():
  topology = _build(3)
  sphere = topology.sphere.astype(np.float64)
  padding = (6 - topology.degrees)[:, None] * sphere
  mean = (sphere[topology.neighbors].sum(axis=1) - padding) / topology.degrees[:, None]
  np.testing.assert_allclose(np.square(sphere - mean).sum(), 0.094866, atol=5e-7)


@pytest.mark.parametrize("level", LEVELS)
def test_left_faces_read_their_right_partners_texels(level):
  topology = _build(level)
  num_self, num_faces = topology.num_self_faces, topology.num_faces
  num_right = (num_faces - num_self) // 2
  assert len(topology.texel_uv) == num_self + num_right
  np.testing.assert_array_equal(
    topology.face_texels[: num_self + num_right], np.arange(num_self + num_right)
  )
  for left in range(num_self + num_right, num_faces):
    right = topology.face_texels[left]
    np.testing.assert_array_equal(
      topology.sphere[topology.faces[left]],
      topology.sphere[topology.faces[right]] * np.array([1.0, -1.0, 1.0], np.float32),
    )


def test_without_a_symmetric_texture_every_face_has_its_own_texels():
  topology = _build(2, symmetric_texture=False)
  assert len(topology.texel_uv) == topology.num_faces
  np.testing.assert_array_equal(topology.face_texels, np.arange(topology.num_faces))
  symmetric = _build(2)
  np.testing.assert_array_equal(topology.texel_uv[: len(symmetric.texel_uv)], symmetric.texel_uv)


def test_left_vertices_take_their_partners_uv_only_with_a_symmetric_texture():
  center, half = _build(2).num_center, _build(2).num_half
  symmetric, whole = _build(2).vertex_uv, _build(2, symmetric_texture=False).vertex_uv
  np.testing.assert_array_equal(symmetric[half:], symmetric[center:half])
  np.testing.assert_array_equal(symmetric[:half], whole[:half])
  assert (np.abs(symmetric[:, 0]) <= 0.5).all()
  assert (np.abs(whole[half:, 0]) > 0.5).all()


@pytest.mark.parametrize("symmetric_texture", [True, False])
@pytest.mark.parametrize("level", LEVELS)
def test_uv_positions_are_finite_and_on_the_map(level, symmetric_texture):
  topology = _build(level, symmetric_texture)
  for uv in (topology.texel_uv, topology.vertex_uv):
    assert uv.dtype == np.float32
    assert np.isfinite(uv).all()
    assert (np.abs(uv) <= 1.0).all()


def test_the_same_arguments_give_the_same_read_only_topology():
  topology = _build(1)
  assert topology is _build(1)
  for field in dataclasses.fields(topology):
    value = getattr(topology, field.name)
    assert not isinstance(value, np.ndarray) or not value.flags.writeable
  with pytest.raises(ValueError, match="read-only"):
    topology.faces[0] = 0


def test_a_jitted_function_may_close_over_a_topology():
  topology = _build(1)
  corners = jax.jit(lambda vertices: vertices[topology.faces])(topology.sphere)
  np.testing.assert_array_equal(corners, topology.sphere[topology.faces])


def test_a_face_without_texels_is_refused():
  with pytest.raises(ValueError, match="texels_per_side is 0"):
    _build(1, texels_per_side=0)
