"""The first canonical map: each part where the profile shows it, on both sides of the template."""

import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.geometry.symmetry import symmetrize
from umr_jax.geometry.topology import build_topology
from umr_jax.geometry.uv import sphere_to_uv, uv_directions
from umr_jax.init.silhouettes import inflate, init_canonical_uv, mean_profile
from umr_jax.init.state import bare_em_state
from umr_jax.models.assemble import with_canonical_uv

SIZE = 48


def maps(rng, count=24):
  """Beasts with a head (part 1) at the raised end and a body (part 2); half look to the left."""
  y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) * 2 / SIZE - 1
  rows = []
  for shift in rng.uniform(-0.1, 0.1, count):
    body = (x / 0.7) ** 2 + ((y - 0.2) / 0.35) ** 2 < 1
    head = ((x - 0.6) / 0.2) ** 2 + ((y + 0.2 + shift) / 0.35) ** 2 < 1
    mask = body | head
    row = np.stack([mask, ~mask, head, body & ~head], axis=-1).astype(np.float32)
    rows.append(row[:, ::-1] if rng.random() < 0.5 else row)
  return np.stack(rows)


@pytest.fixture
def topology():
  return build_topology(3, texels_per_side=2, symmetric_texture=True)


def test_each_vertex_has_the_part_that_the_profile_shows_there(topology, rng):
  profile = mean_profile(maps(rng))
  half = inflate(profile[..., 0], topology, width=0.4)
  canonical = init_canonical_uv(profile[..., 1:], half, topology, uv_height=32)
  assert canonical.shape == (32, 64, 3) and canonical.dtype == np.float32
  np.testing.assert_allclose(canonical.sum(-1), 1.0, atol=1e-4)
  assert (canonical[..., 0] == 0.0).all()
  state = with_canonical_uv(bare_em_state(half), canonical, topology=topology)
  vertices = np.asarray(symmetrize(jnp.asarray(half), num_center=topology.num_center))
  labels = np.asarray(state.part_vertices)
  forward = vertices[:, 0] > 0.55
  upward = vertices[:, 2] > 0.3
  assert (labels[forward & upward] == 1).all() and (forward & upward).sum() > 10
  assert (labels[vertices[:, 0] < 0.1] == 2).all()
  # Mirror images are the same part.
  center, pairs = topology.num_center, (topology.num_vertices - topology.num_center) // 2
  np.testing.assert_array_equal(labels[center : center + pairs], labels[center + pairs :])


def test_which_way_the_images_look_does_not_matter(topology, rng):
  images = maps(rng)
  turned = np.where(rng.random(len(images))[:, None, None, None] < 0.5, images, images[:, :, ::-1])
  np.testing.assert_allclose(mean_profile(turned), mean_profile(images), atol=1e-6)


def test_directions_are_the_inverse_of_the_map():
  directions = uv_directions(16)
  row, column = np.mgrid[0:16, 0:32] + 0.5
  expected = np.stack([column / 16 - 1, row / 8 - 1], axis=-1)
  np.testing.assert_allclose(sphere_to_uv(directions), expected, atol=1e-9)
  np.testing.assert_allclose(np.linalg.norm(directions, axis=-1), 1.0)
