"""The initial template: a sphere, or the masks' mean as a solid; symmetric whatever is asked."""

import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.geometry.symmetry import symmetrize
from umr_jax.geometry.topology import build_topology
from umr_jax.init.silhouettes import inflate, init_canonical_uv, mean_profile, unit_sphere
from umr_jax.init.state import bare_em_state
from umr_jax.models.assemble import with_canonical_uv
from umr_jax.render import soft_silhouette

SIZE = 48


def build(level=2):
  return build_topology(level, texels_per_side=2, symmetric_texture=True)


def mean_silhouette(masks):
  return mean_profile(masks[..., None])[..., 0]


def beast(shift=0.0):
  """A body with a raised head at the right end, [S, S]."""
  y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) * 2 / SIZE - 1
  body = (x / 0.7) ** 2 + ((y - 0.2) / 0.35) ** 2 < 1
  head = ((x - 0.6) / 0.2) ** 2 + ((y + 0.2 + shift) / 0.35) ** 2 < 1
  return (body | head).astype(np.float32)


def test_the_sphere_has_radius_one_and_its_centre_in_the_mirror_plane():
  topology = build()
  vertices = unit_sphere(topology)
  assert vertices.shape == (topology.num_half, 3) and vertices.dtype == np.float32
  np.testing.assert_allclose(np.linalg.norm(vertices, axis=-1), 1.0, rtol=1e-5)
  np.testing.assert_allclose(vertices[: topology.num_center, 1], 0.0, atol=1e-6)


def test_the_profile_does_not_depend_on_which_way_the_animals_look(rng):
  masks = np.stack([beast(shift) for shift in rng.uniform(-0.1, 0.1, 12)])
  profile = mean_silhouette(masks)
  turned = np.where(rng.random(12)[:, None, None] < 0.5, masks, masks[:, :, ::-1])
  np.testing.assert_allclose(mean_silhouette(turned), profile, atol=1e-6)
  # The raised end is on the right, and the mean looks like its parts.
  assert profile[: SIZE // 2, SIZE // 2 :].sum() > 2 * profile[: SIZE // 2, : SIZE // 2].sum()
  both = np.minimum(profile, beast()).sum() / np.maximum(profile, beast()).sum()
  assert both > 0.9


def test_views_from_the_front_do_not_blur_the_profile():
  y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) * 2 / SIZE - 1
  front = ((x / 0.3) ** 2 + (y / 0.8) ** 2 < 1).astype(np.float32)
  masks = np.concatenate([np.repeat(front[None], 20, axis=0), beast()[None], beast()[None]])
  np.testing.assert_allclose(mean_silhouette(masks), beast(), atol=1e-6)


def test_masks_without_a_side_are_refused():
  with pytest.raises(ValueError, match="mirror image"):
    mean_silhouette(np.ones((3, SIZE, SIZE), np.float32))


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_side_view_of_the_solid_is_the_silhouette(level):
  topology = build(level)
  half = inflate(beast(), topology, width=0.4)
  vertices = np.asarray(symmetrize(jnp.asarray(half), num_center=topology.num_center))
  assert np.isfinite(vertices).all()
  np.testing.assert_allclose(half[: topology.num_center, 1], 0.0)
  np.testing.assert_allclose(np.ptp(vertices[:, 1]), 0.4 * np.ptp(vertices[:, 0]), rtol=0.1)
  # Seen along y: x to the right, z up (image y points down).
  seen = np.stack([vertices[:, 0], -vertices[:, 2], 5.0 - vertices[:, 1]], axis=-1)
  faces = jnp.asarray(seen[np.asarray(topology.outward_faces)], jnp.float32)[None]
  alpha = np.asarray(soft_silhouette(faces, image_size=SIZE, sigma=1e-5, antialias=2))[0]
  overlap = np.minimum(alpha, beast()).sum() / np.maximum(alpha, beast()).sum()
  assert overlap > {1: 0.75, 2: 0.88, 3: 0.93}[level]


def test_the_solid_is_wound_outward():
  topology = build()
  half = inflate(beast(), topology, width=0.4)
  vertices = np.asarray(symmetrize(jnp.asarray(half), num_center=topology.num_center))
  corners = vertices[np.asarray(topology.outward_faces)].astype(np.float64)
  volume = np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
  area = 4.0 * beast().mean()
  assert 0.4 * area * 0.2 < volume < area * 0.6


# The initial canonical map.


def part_maps(rng, count=24):
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


def test_each_vertex_has_the_part_that_the_profile_shows_there(rng):
  topology = build(3)
  profile = mean_profile(part_maps(rng))
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


def test_the_mean_part_map_does_not_depend_on_the_side_that_images_face(rng):
  images = part_maps(rng)
  turned = np.where(rng.random(len(images))[:, None, None, None] < 0.5, images, images[:, :, ::-1])
  np.testing.assert_allclose(mean_profile(turned), mean_profile(images), atol=1e-6)
