"""Cameras: golden projection, and twins in NumPy and SciPy."""

import dataclasses

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from umr_jax.geometry import camera
from umr_jax.geometry.icosphere import icosphere
from umr_jax.render import soft_rasterize


@pytest.fixture
def cameras(rng):
  q = rng.normal(size=(6, 4))
  q /= np.linalg.norm(q, axis=-1, keepdims=True)
  scale, shift = rng.uniform(0.4, 1.2, size=(6, 1)), rng.uniform(-0.3, 0.3, size=(6, 2))
  return jnp.asarray(np.concatenate([scale, shift, q], axis=-1), jnp.float32)


def _scipy_rotation(q):
  return Rotation.from_quat(np.asarray(q, np.float64), scalar_first=True)


def test_project_reproduces_the_released_projection(golden_geometry):
  # The golden values are y down and offset by 5, as the frames of this package are.
  projected = camera.project(
    jnp.asarray(golden_geometry["camera/vertices"]), jnp.asarray(golden_geometry["camera/cam"])
  )
  np.testing.assert_allclose(projected, golden_geometry["camera/projected"], atol=2e-6)


def test_project_matches_its_numpy_twin(cameras, rng):
  vertices = rng.normal(size=(2, 3, 10, 3)).astype(np.float32)
  batch = cameras.reshape(2, 3, 7)
  projected = np.asarray(camera.project(jnp.asarray(vertices), batch))
  for index in np.ndindex(2, 3):
    s, tx, ty, *q = np.asarray(batch, np.float64)[index]
    expected = s * _scipy_rotation(q).apply(vertices[index]) + [tx, ty, camera.DEPTH_OFFSET]
    np.testing.assert_allclose(projected[index], expected, atol=3e-6)


def test_project_has_finite_gradients_even_for_a_collapsed_camera():
  def loss(vertices, cameras):
    return jnp.sum(jnp.square(camera.project(vertices, cameras)))

  for one in (jnp.asarray([0.7, 0.1, 0.0, 1.0, 0.0, 0.0, 0.0]), jnp.zeros(7)):
    for grad in jax.grad(loss, argnums=(0, 1))(jnp.zeros((4, 3)), one):
      assert np.isfinite(grad).all()


def test_cameras_are_never_broadcast_silently(cameras):
  with pytest.raises(jaxtyping.TypeCheckError):
    camera.project(jnp.zeros((1, 4, 3)), cameras)


def test_the_frame_is_x_right_y_down_z_away():
  # With the initial quaternion the object's z, up, is the image's -y; its y points away.
  upright = jnp.asarray([1.0, 0.0, 0.0, 0.5**0.5, 0.5**0.5, 0.0, 0.0])
  projected = camera.project(
    jnp.asarray([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), upright
  )
  expected = [[1.0, 0.0, 5.0], [0.0, 0.0, 6.0], [0.0, -1.0, 5.0]]
  np.testing.assert_allclose(projected, expected, atol=1e-6)


@pytest.mark.parametrize("scale", [0.5, 2.0, 4.5, 6.0, 40.0])
def test_an_object_stays_beyond_the_near_plane_at_any_scale(rng, scale):
  """With an offset of 5 alone, colour is lost from scale 4 on and faces from 5 on."""
  sphere, faces = icosphere(1)
  view = jnp.asarray([scale, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
  corners = camera.project_faces(jnp.asarray(sphere, jnp.float32), view, faces)
  assert corners[..., 2].min() >= 1.0
  image = soft_rasterize(corners, jnp.ones((len(faces), 1, 1)), image_size=8)
  center = image[3:5, 3:5]
  np.testing.assert_allclose(center, 1.0, atol=1e-3)


def test_the_depth_offset_is_constant_in_the_usual_range_and_continuous(cameras):
  scaled = jnp.asarray([[s, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0] for s in (0.0, 0.7, 2.0, 2.5, 50.0)])
  np.testing.assert_array_equal(camera.depth_offset(scaled), [5.0, 5.0, 5.0, 6.0, 101.0])
  far = jnp.asarray([0.0, 0.0, 2.0])[None]
  slope = jax.grad(lambda c: camera.project(far, c)[0, 2])(scaled[3])
  assert float(slope[0]) == pytest.approx(2.0)  # of s X.z alone


def test_project_faces_gathers_what_is_projected(cameras, rng):
  vertices = jnp.asarray(rng.normal(size=(6, 5, 3)), jnp.float32)
  faces = np.array([[0, 1, 2], [4, 2, 1]], np.int32)
  expected = np.asarray(camera.project(vertices, cameras))[:, faces]
  np.testing.assert_array_equal(camera.project_faces(vertices, cameras, faces), expected)


def test_face_vertices_matches_the_loop_it_vectorises(rng):
  projected = rng.normal(size=(2, 2, 5, 3)).astype(np.float32)
  faces = np.array([[0, 1, 2], [4, 2, 1], [3, 3, 0]], np.int32)
  corners = np.asarray(camera.face_vertices(jnp.asarray(projected), faces))
  assert corners.shape == (2, 2, 3, 3, 3)
  for index in np.ndindex(2, 2):
    for face, corner in np.ndindex(3, 3):
      np.testing.assert_array_equal(
        corners[index][face, corner], projected[index][faces[face, corner]]
      )


def test_face_vertices_sums_the_gradients_of_shared_vertices():
  faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
  grad = jax.grad(lambda v: camera.face_vertices(v, faces).sum())(jnp.zeros((5, 3)))
  np.testing.assert_array_equal(grad[:, 0], [2.0, 1.0, 2.0, 1.0, 0.0])


def test_the_rotation_is_scipys(cameras):
  np.testing.assert_allclose(
    camera.rotation(cameras), _scipy_rotation(cameras[:, 3:]).as_matrix(), atol=1e-6
  )


def test_rotate_view_turns_about_the_image_vertical(cameras):
  degrees = jnp.asarray([0, 30, 90, 179, -45, 360])
  turned = camera.rotate_view(cameras, degrees)
  turn = Rotation.from_euler("y", np.asarray(degrees)[:, None], degrees=True).as_matrix()
  np.testing.assert_allclose(
    camera.rotation(turned), turn @ np.asarray(camera.rotation(cameras)), atol=2e-6
  )
  np.testing.assert_array_equal(turned[:, :3], cameras[:, :3])


def test_rotate_view_by_one_number_moves_the_near_side_left(cameras):
  for degrees in (20, 20.0):
    turned = camera.rotate_view(cameras, degrees)
    np.testing.assert_array_equal(turned, camera.rotate_view(cameras, jnp.full(6, 20.0)))
  still = jnp.asarray([1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
  near = camera.project(jnp.asarray([[0.0, 0.0, -1.0]]), camera.rotate_view(still, 20.0))
  assert near[0, 0] < -0.3


@pytest.mark.parametrize("count", [1, 2, 8])
def test_spread_azimuth_turns_the_object_about_its_vertical(cameras, count):
  spread = camera.spread_azimuth(cameras, count)
  assert spread.shape == (6, count, 7)
  np.testing.assert_allclose(spread[:, 0], cameras, atol=1e-6)
  for k in range(count):
    turn = Rotation.from_euler("z", 360.0 * k / count, degrees=True).as_matrix()
    expected = np.asarray(camera.rotation(cameras)) @ turn
    np.testing.assert_allclose(camera.rotation(spread[:, k]), expected, atol=2e-6)
    np.testing.assert_array_equal(spread[:, k, :3], cameras[:, :3])


def test_spread_azimuth_keeps_the_object_upright(cameras):
  spread = camera.spread_azimuth(cameras, 8)
  up = jnp.broadcast_to(jnp.asarray([[[0.0, 0.0, 1.0]]]), (6, 8, 1, 3))
  ends = camera.project(up, spread)[:, :, 0]
  np.testing.assert_allclose(ends, jnp.broadcast_to(ends[:, :1], ends.shape), atol=2e-6)


def test_a_camera_is_packed_as_it_was_unpacked(cameras):
  parts = camera.Camera.unpack(cameras)
  assert (parts.scale.shape, parts.quaternion.shape) == (cameras.shape[:-1], (len(cameras), 4))
  np.testing.assert_array_equal(parts.translation, cameras[:, 1:3])
  np.testing.assert_array_equal(parts.pack(), cameras)
  turned = jax.jit(lambda part: dataclasses.replace(part, scale=2.0 * part.scale).pack())(parts)
  np.testing.assert_array_equal(turned[:, 0], 2.0 * cameras[:, 0])
  np.testing.assert_array_equal(turned[:, 1:], cameras[:, 1:])


def test_everything_works_under_jit_and_vmap(cameras):
  found = camera.rotation(cameras)
  np.testing.assert_allclose(jax.jit(camera.rotation)(cameras), found, atol=1e-6)
  np.testing.assert_allclose(jax.vmap(camera.rotation)(cameras), found, atol=1e-6)
  spread = jax.jit(lambda c: camera.spread_azimuth(c, 4))(cameras)
  np.testing.assert_allclose(spread, camera.spread_azimuth(cameras, 4), atol=1e-6)
