"""Symmetric order, symmetrize and halve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.geometry.icosphere import icosphere
from umr_jax.geometry.symmetry import halve, order_symmetrically, symmetrize

MIRROR = np.array([1.0, -1.0, 1.0])
# Vertices on the plane and self-mirrored faces, by level; level 3 as published.
CENTERS = [4, 8, 16, 32, 64]


@pytest.mark.parametrize(("level", "count"), enumerate(CENTERS))
def test_vertices_are_ordered_center_right_left(level, count):
  mesh = order_symmetrically(*icosphere(level))
  num_side = (len(mesh.vertices) - count) // 2
  assert mesh.num_center == count
  center, right, left = np.split(mesh.vertices, [count, count + num_side])
  assert (center[:, 1] == 0.0).all()
  assert (right[:, 1] > 0.0).all()
  np.testing.assert_array_equal(left, right * MIRROR)


@pytest.mark.parametrize(("level", "count"), enumerate(CENTERS))
def test_faces_are_ordered_self_right_left(level, count):
  mesh = order_symmetrically(*icosphere(level))
  num_side = (len(mesh.faces) - count) // 2
  assert mesh.num_self_faces == count
  own, right, left = np.split(mesh.vertices[mesh.faces], [count, count + num_side])
  np.testing.assert_array_equal(
    np.sort((own * MIRROR).view("f8,f8,f8")[..., 0], axis=-1),
    np.sort(np.ascontiguousarray(own + 0.0).view("f8,f8,f8")[..., 0], axis=-1),
  )
  assert (right[..., 1] >= 0.0).all()
  np.testing.assert_array_equal(left, right * MIRROR)


@pytest.mark.parametrize("level", range(5))
def test_the_mesh_is_the_same_but_for_its_order(level):
  vertices, faces = icosphere(level)
  mesh = order_symmetrically(vertices, faces)

  def triangles(vertices, faces):
    return {frozenset(map(tuple, corners)) for corners in (vertices[faces] + 0.0).tolist()}

  assert triangles(mesh.vertices, mesh.faces) == triangles(vertices, faces)
  assert triangles(mesh.vertices, mesh.outward_faces) == triangles(vertices, faces)
  assert (np.linalg.det(mesh.vertices[mesh.outward_faces]) > 0.0).all()


def test_published_sizes():
  mesh = order_symmetrically(*icosphere(3))
  assert (len(mesh.vertices), mesh.num_center) == (642, 32)
  assert (len(mesh.faces), mesh.num_self_faces) == (1280, 32)
  assert (642 + mesh.num_center) // 2 == 337


def test_an_asymmetric_mesh_is_refused():
  vertices, faces = icosphere(1)
  moved = vertices.copy()
  moved[np.argmax(vertices[:, 1])] *= 1.1
  with pytest.raises(ValueError, match="no mirror image"):
    order_symmetrically(moved, faces)
  with pytest.raises(ValueError, match="some face has no mirror image"):
    off_plane = np.flatnonzero((vertices[faces, 1] > 0.0).all(axis=-1))
    order_symmetrically(vertices, np.delete(faces, off_plane[0], axis=0))


def test_symmetrize_matches_the_loop_it_vectorises(rng):
  half = rng.normal(size=(2, 3, 7, 3)).astype(np.float32)
  whole = np.asarray(symmetrize(jnp.asarray(half), num_center=3))
  assert whole.shape == (2, 3, 11, 3)
  for index in np.ndindex(2, 3):
    expected = [(x, 0.0, z) for x, _, z in half[index][:3]]
    expected += [tuple(v) for v in half[index][3:]]
    expected += [(x, -y, z) for x, y, z in half[index][3:]]
    np.testing.assert_array_equal(whole[index], np.array(expected, np.float32))


def test_halving_undoes_symmetrizing_and_the_reverse():
  mesh = order_symmetrically(*icosphere(2))
  sphere = jnp.asarray(mesh.vertices, jnp.float32)
  half = halve(sphere, num_center=mesh.num_center)
  assert half.shape == ((162 + 16) // 2, 3)
  np.testing.assert_array_equal(symmetrize(half, num_center=mesh.num_center), sphere)


def test_center_vertices_get_no_gradient_across_the_plane_and_right_ones_twice_the_share():
  def loss(half):
    return jnp.sum(jnp.square(symmetrize(half, num_center=2)))

  half = jnp.full((5, 3), 0.5)
  grad = np.asarray(jax.grad(loss)(half))
  np.testing.assert_allclose(grad[:2], [[1.0, 0.0, 1.0]] * 2)
  np.testing.assert_allclose(grad[2:], 2.0)


def test_a_mesh_of_center_vertices_alone_is_its_own_half():
  flat = symmetrize(jnp.ones((4, 3)), num_center=4)
  np.testing.assert_array_equal(flat, np.array([[1.0, 0.0, 1.0]] * 4))
  np.testing.assert_array_equal(halve(flat, num_center=4), flat)


def test_numpy_vertices_stay_on_the_host():
  mesh = order_symmetrically(*icosphere(1))
  half = halve(mesh.vertices.astype(np.float32), num_center=mesh.num_center)
  assert isinstance(half, np.ndarray)
  np.testing.assert_array_equal(
    symmetrize(half, num_center=mesh.num_center), mesh.vertices.astype(np.float32)
  )
