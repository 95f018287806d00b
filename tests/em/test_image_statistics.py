"""Parts seen on the surface: the visible half has its colours, its mirror image the same."""

import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.em.image_statistics import project_visible_parts
from umr_jax.geometry import camera
from umr_jax.geometry.topology import build_topology
from umr_jax.geometry.uv import mirrored_columns, uv_corners, uv_directions
from umr_jax.models.camera_heads import upright_rotation
from umr_jax.render import rasterize

S, HU = 64, 32


@pytest.fixture(scope="module")
def topology():
  return build_topology(3, texels_per_side=2, symmetric_texture=True)


def view(topology, azimuth):
  """The unit sphere from one side: projected vertices and visible faces."""
  turn = upright_rotation(jnp.array([azimuth]), jnp.array([0.0]), jnp.array([0.0]))
  cameras = jnp.concatenate([jnp.array([[0.8, 0.0, 0.0]]), turn], axis=-1)
  projected = camera.project(jnp.asarray(topology.sphere)[None], cameras)
  faces = camera.face_vertices(projected, topology.faces)
  flat = jnp.ones((1, topology.num_faces, 1, 1))
  return projected[..., :2], rasterize(faces, flat, image_size=S, aggr_rgb="hard").visible


def test_each_point_takes_the_part_that_is_seen_on_it(topology):
  """An image whose upper half is one part and whose lower half is another."""
  parts = np.zeros((1, S, S, 3), np.float32)
  parts[:, : S // 2, :, 1] = parts[:, S // 2 :, :, 2] = 1.0
  projected, visible = view(topology, azimuth=0.0)
  found = np.asarray(
    project_visible_parts(jnp.asarray(parts), projected, visible, topology, uv_height=HU)
  )[0]
  _, y, z = np.moveaxis(uv_directions(HU), -1, 0)
  # From the side one half is seen, and the other is its mirror image: every point but the rim.
  inner = (np.abs(y) > 0.2) & (np.abs(z) > 0.15)
  np.testing.assert_allclose(found[inner].sum(-1), 1.0, atol=1e-5)
  assert (found[inner & (z > 0)].argmax(-1) == 1).all()
  assert (found[inner & (z < 0)].argmax(-1) == 2).all()


def test_what_is_hidden_is_not_known(topology):
  parts = jnp.ones((1, S, S, 2))
  projected, visible = view(topology, azimuth=90.0)
  found = np.asarray(project_visible_parts(parts, projected, visible, topology, uv_height=HU))[
    0, ..., 1
  ]
  x = uv_directions(HU)[..., 0]
  near, far = (x, -x) if found[x > 0.3].sum() > found[x < -0.3].sum() else (-x, x)
  # From one end both sides are seen, and each point has its mirror image in view, too.
  np.testing.assert_allclose(found[near > 0.3], 2.0, atol=1e-5)
  np.testing.assert_array_equal(found[far > 0.3], 0.0)


def test_corners_surround_their_pixel_and_mirror_images_match(topology):
  corners, weights = uv_corners(topology, HU)
  np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-5)
  directions = uv_directions(HU)
  places = np.einsum("hwk,hwkc->hwc", weights, topology.sphere[corners])
  assert np.linalg.norm(places - directions, axis=-1).max() < 0.12
  mirrored = directions[:, mirrored_columns(HU)]
  np.testing.assert_allclose(mirrored, directions * [1, -1, 1], atol=1e-9)
