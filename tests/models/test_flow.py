"""Flow that geometry determines: where points are seen, and how it is kept on the object."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.rotations import quaternions
from umr_jax.geometry import camera
from umr_jax.geometry.topology import build_topology
from umr_jax.geometry.uv import mirrored_columns, uv_corners, uv_directions
from umr_jax.models.assemble import face_flow
from umr_jax.models.flow import camera_flow, clamp_to_mask
from umr_jax.render import rasterize

HEIGHT = 16


@pytest.fixture(scope="module")
def mesh():
  return build_topology(2, texels_per_side=3, symmetric_texture=True)


def _looking(azimuth, elevation=0.2):
  """A camera at an azimuth from the object's right side (y > 0), a little from above."""
  # Rows: the image's right, down, and into the scene, in the object's frame.
  a, e = np.radians(azimuth), elevation
  to_eye = np.array([np.sin(a) * np.cos(e), np.cos(a) * np.cos(e), np.sin(e)])
  right = np.cross([0.0, 0.0, 1.0], to_eye)
  right /= np.linalg.norm(right)
  down = np.cross(-to_eye, right)
  turn = quaternions(np.stack([right, down, -to_eye])[None])
  place = jnp.array([[0.7, 0.05, -0.1]])
  return jnp.concatenate([place, jnp.asarray(turn)], axis=-1)


def _normals(vertices, mesh):
  """The unit normal of every face, outward."""
  a, b, c = np.moveaxis(vertices[mesh.outward_faces], 1, 0)
  normals = np.cross(b - a, c - a)
  return normals / np.linalg.norm(normals, axis=-1, keepdims=True)


@pytest.mark.parametrize("level", [0, 2, 3])
def test_the_corners_of_a_pixel_enclose_its_direction(level):
  topology = build_topology(level, texels_per_side=1, symmetric_texture=True)
  corners, weights = uv_corners(topology, HEIGHT)
  assert (weights >= 0.0).all()
  np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-6)
  faces = {tuple(sorted(face)) for face in topology.faces.tolist()}
  assert {tuple(sorted(c)) for c in corners.reshape(-1, 3).tolist()} <= faces
  points = np.einsum("hwk,hwkc->hwc", weights, topology.sphere[corners])
  points /= np.linalg.norm(points, axis=-1, keepdims=True)
  np.testing.assert_allclose(points, uv_directions(HEIGHT), atol=1e-6)


@pytest.mark.parametrize("symmetric_texture", [True, False])
@pytest.mark.parametrize("azimuth", [-150.0, -60.0, 20.0, 110.0])
def test_what_is_seen_is_found_where_it_is_drawn(rng, azimuth, symmetric_texture):
  mesh = build_topology(2, texels_per_side=3, symmetric_texture=symmetric_texture)
  half = mesh.sphere[None] * rng.uniform(0.9, 1.1, (1, mesh.num_vertices, 1))
  half[:, mesh.num_half :] = half[:, mesh.num_center : mesh.num_half] * [1.0, -1.0, 1.0]
  vertices = jnp.asarray(half, jnp.float32)
  eye = _looking(azimuth)
  flow = face_flow(camera_flow(vertices, eye, mesh, uv_height=64), mesh)
  corners = camera.project_faces(vertices, eye, mesh.faces)
  fragments = rasterize(corners, jnp.zeros((1, mesh.num_faces, 9, 3)), image_size=128)
  # There the flow and the renderer must agree: where a texture is shared, on the camera's half.
  centers = np.asarray(vertices)[0][mesh.faces].mean(axis=1)
  near = (centers[:, 1] > 0.05) if abs(azimuth) < 90 else (centers[:, 1] < -0.05)
  near |= not symmetric_texture
  # Faces that are seen nearly whole: a sliver's landing is not its middle.
  facing = _normals(np.asarray(vertices)[0], mesh) @ np.asarray(camera.rotation(eye))[0, 2] < -0.5
  seen = np.asarray(fragments.visible)[0] & near & facing
  assert seen.sum() > 40
  gap = np.asarray(flow.mean(axis=2) - fragments.landing)[0][seen]
  assert np.abs(gap).max() < 0.03


def test_a_point_and_its_mirror_image_share_the_flow_of_the_nearer_one(mesh):
  vertices = jnp.asarray(mesh.sphere[None])
  right = camera_flow(vertices, _looking(0.0), mesh, uv_height=HEIGHT)
  left = camera_flow(vertices, _looking(180.0), mesh, uv_height=HEIGHT)
  for flow in (right, left):
    np.testing.assert_allclose(flow, flow[:, :, mirrored_columns(HEIGHT)], atol=1e-6)
  # From the right, x = 1 lies on the image's left.
  corners, weights = uv_corners(mesh, HEIGHT)
  x = np.einsum("hwk,hwk->hw", weights, mesh.sphere[corners][..., 0])
  for flow, sign in ((right, -1.0), (left, 1.0)):
    np.testing.assert_allclose(flow[0, ..., 0], 0.7 * sign * x + 0.05, atol=1e-5)


def test_with_a_texture_of_each_side_only_hidden_points_take_their_mirror_images_place(mesh):
  free = build_topology(2, texels_per_side=3, symmetric_texture=False)
  vertices = jnp.asarray(mesh.sphere[None])
  eye = _looking(35.0)
  flow = np.asarray(camera_flow(vertices, eye, free, uv_height=HEIGHT))[0]
  directions = uv_directions(HEIGHT)
  depth = directions @ np.asarray(camera.rotation(eye))[0, 2]
  hidden, both = depth > 0.1, (depth > 0.1) & (depth[:, mirrored_columns(HEIGHT)] > 0.1)
  corners, weights = uv_corners(mesh, HEIGHT)
  points = np.einsum("hwk,hwkc->hwc", weights, mesh.sphere[corners])
  mirrored = points * [1.0, -1.0, 1.0]
  for members, expected in (
    (depth < -0.1, points),
    (hidden & (depth[:, mirrored_columns(HEIGHT)] < -0.1), mirrored),
    (both, points),
  ):
    assert members.sum() > 20
    places = camera.project(jnp.asarray(expected[members][None], jnp.float32), eye)[0, :, :2]
    np.testing.assert_allclose(flow[members], places, atol=1e-5)


def test_it_stays_on_the_image_and_has_no_gradient(mesh):
  vertices = jnp.asarray(mesh.sphere[None])

  def total(vertices, eye):
    return jnp.sum(camera_flow(vertices, eye, mesh, uv_height=HEIGHT) ** 2)

  eye = _looking(30.0)
  assert total(vertices, eye) > 0.0
  for gradient in jax.grad(total, argnums=(0, 1))(vertices, eye):
    np.testing.assert_array_equal(gradient, 0.0)
  far = camera_flow(vertices, eye.at[:, 0].set(5.0), mesh, uv_height=HEIGHT)
  assert np.abs(far).max() == 1.0


SIZE = 16


def centers():
  along = (2.0 * np.arange(SIZE) + 1.0) / SIZE - 1.0
  return np.stack(np.meshgrid(along, along), axis=-1).astype(np.float32)


def disc(x, y, radius):
  away = np.linalg.norm(centers() - np.array([x, y]), axis=-1)
  return (away < radius).astype(np.float32)


def moved(flow, mask):
  return np.asarray(jax.jit(clamp_to_mask)(jnp.asarray(flow), jnp.asarray(mask)))


def test_places_move_to_the_nearest_covered_pixel():
  mask = np.stack([disc(0.3, -0.2, 0.4), disc(-0.5, 0.5, 0.3)])
  after = moved(np.broadcast_to(centers(), (2, SIZE, SIZE, 2)), mask)
  for covered, places in zip(mask > 0.5, after, strict=True):
    inside = centers()[covered]
    away = np.linalg.norm(centers()[:, :, None] - inside, axis=-1).min(axis=-1)
    np.testing.assert_allclose(np.linalg.norm(places - centers(), axis=-1), away, atol=1e-6)
    np.testing.assert_allclose(
      np.linalg.norm(places[:, :, None] - inside, axis=-1).min(axis=-1), 0.0, atol=1e-6
    )


def test_between_covered_pixels_nothing_moves():
  mask = disc(0.0, 0.0, 0.6)[None]
  inside = np.random.default_rng(0).uniform(-0.3, 0.3, (1, 4, 8, 2)).astype(np.float32)
  np.testing.assert_array_equal(moved(inside, mask), inside)


def test_beyond_the_outermost_pixels_a_place_moves_with_them():
  mask = disc(0.0, 0.0, 0.3)[None]
  edge = np.array([[[[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.9, 0.9]]]], np.float32)
  after = moved(edge, mask)
  assert (np.linalg.norm(after, axis=-1) < 0.4).all()


def test_the_flow_is_continuous():
  mask = disc(0.1, 0.0, 0.5)[None]
  x = np.linspace(-1.0, 1.0, 2001, dtype=np.float32)
  line = np.stack([x, np.full_like(x, 0.03)], axis=-1)[None, None]
  steps = np.linalg.norm(np.diff(moved(line, mask)[0, 0], axis=0), axis=-1)
  assert steps.max() < 0.02


@pytest.mark.parametrize("level", [0.0, 0.49])
def test_an_image_without_a_covered_pixel_is_left_alone(level):
  mask = np.stack([np.full((SIZE, SIZE), level, np.float32), disc(0.0, 0.0, 0.3)])
  flow = np.full((2, 2, 4, 2), 0.8, np.float32)
  after = moved(flow, mask)
  np.testing.assert_array_equal(after[0], flow[0])
  assert np.abs(after[1] - flow[1]).min() > 0.1
