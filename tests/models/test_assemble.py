"""Where predictions meet the template: twins, symmetry, seams, gradients."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from umr_jax.geometry.sampling import bilinear_sample
from umr_jax.geometry.topology import build_topology
from umr_jax.models import assemble
from umr_jax.types import Template

B, HU, WU = 2, 16, 32


@pytest.fixture(params=[True, False], ids=["symmetric texture", "free texture"])
def topology(request):
  return build_topology(1, texels_per_side=3, symmetric_texture=request.param)


@pytest.fixture
def template(topology):
  return Template(half_vertices=jnp.asarray(topology.sphere[: topology.num_half]))


def test_no_offsets_give_the_template_itself(topology, template):
  offsets = jnp.zeros((B, topology.num_half, 3))
  vertices = assemble.assemble_vertices(offsets, template, topology)
  np.testing.assert_allclose(vertices, np.broadcast_to(topology.sphere, vertices.shape), atol=1e-7)


def test_offsets_move_both_sides_alike(topology, template, rng):
  offsets = jnp.asarray(rng.normal(size=(B, topology.num_half, 3)), jnp.float32)
  vertices = np.asarray(assemble.assemble_vertices(offsets, template, topology))
  half, center = topology.num_half, topology.num_center
  expected = np.asarray(template.half_vertices) + np.asarray(offsets)
  np.testing.assert_allclose(vertices[:, center:half], expected[:, center:], rtol=1e-6)
  np.testing.assert_array_equal(vertices[:, half:], vertices[:, center:half] * [1, -1, 1])
  np.testing.assert_array_equal(vertices[:, :center, 1], 0.0)


def test_offsets_of_another_mesh_are_refused(template, topology):
  with pytest.raises((jaxtyping.TypeCheckError, TypeError)):
    assemble.assemble_vertices(jnp.zeros((B, topology.num_half + 1, 3)), template, topology)


def look_up_by_loop(maps, uv):
  height, width = maps.shape[1:3]
  result = np.zeros((len(maps), len(uv), maps.shape[-1]))
  for n, (u, v) in enumerate(uv.astype(np.float64)):
    column, row = (u + 1) / 2 * width - 0.5, (v + 1) / 2 * height - 0.5
    x, y = int(np.floor(column)), int(np.floor(row))
    for j, weight_y in ((y, 1 - (row - y)), (y + 1, row - y)):
      for i, weight_x in ((x, 1 - (column - x)), (x + 1, column - x)):
        inside = min(max(j, 0), height - 1)
        result[:, n] += weight_y * weight_x * maps[:, inside, i % width]
  return result


def test_look_up_matches_the_loop_it_vectorises(rng):
  maps = rng.normal(size=(B, HU, WU, 3)).astype(np.float32)
  uv = np.concatenate([rng.uniform(-1, 1, (50, 2)), [[-1, -1], [1, 1], [-1, 0.3], [0.999, 1]]])
  uv = uv.astype(np.float32)
  found = assemble.look_up(jnp.asarray(maps), uv)
  np.testing.assert_allclose(found, look_up_by_loop(maps, uv), rtol=1e-4, atol=1e-5)


def test_look_up_is_ordinary_sampling_away_from_the_border(rng):
  maps = jnp.asarray(rng.normal(size=(B, HU, WU, 2)), jnp.float32)
  uv = rng.uniform(-0.9, 0.9, (40, 2)).astype(np.float32)
  points = jnp.broadcast_to(jnp.asarray(uv)[None], (B, 40, 2))
  np.testing.assert_allclose(
    assemble.look_up(maps, uv), bilinear_sample(maps, points), rtol=1e-4, atol=1e-5
  )


def test_look_up_is_continuous_across_the_seam(rng):
  maps = jnp.asarray(rng.normal(size=(B, HU, WU, 2)), jnp.float32)
  sides = assemble.look_up(maps, np.array([[-1.0, 0.2], [1.0, 0.2]], np.float32))
  np.testing.assert_allclose(sides[:, 0], sides[:, 1], rtol=1e-5)


def test_faces_read_their_row_of_texels(topology, rng):
  flow_map = jnp.asarray(rng.uniform(-1, 1, (B, HU, WU, 2)), jnp.float32)
  flow = assemble.face_flow(flow_map, topology)
  assert flow.shape == (B, topology.num_faces, 9, 2)
  uv = topology.texel_uv[topology.face_texels].reshape(-1, 2)
  expected = look_up_by_loop(np.asarray(flow_map), uv)
  np.testing.assert_allclose(flow.reshape(B, -1, 2), expected, rtol=1e-4, atol=1e-5)


def test_an_upsampled_flow_goes_through_the_same_points(rng):
  coarse = jnp.asarray(rng.uniform(-1, 1, (B, HU, WU, 2)), jnp.float32)
  assert assemble.upsample_flow(coarse, HU) is coarse
  fine = assemble.upsample_flow(coarse, 3 * HU)
  assert fine.shape == (B, 3 * HU, 6 * HU, 2)
  # The middle pixel of every 3 x 3 lies on the coarse pixel's centre.
  np.testing.assert_allclose(fine[:, 1::3, 1::3], coarse, atol=1e-5)
  # The seam of the map is no border: half a pixel either side of it lies between its two columns.
  left, right = np.asarray(coarse[:, :, 0]), np.asarray(coarse[:, :, -1])
  np.testing.assert_allclose(fine[:, 1::3, 0], left * 2 / 3 + right / 3, atol=1e-5)


def test_identity_flow_copies_the_image(rng):
  image = jnp.asarray(rng.random((B, HU, WU, 3)), jnp.float32)
  y, x = np.meshgrid(
    (2 * np.arange(HU) + 1 - HU) / HU, (2 * np.arange(WU) + 1 - WU) / WU, indexing="ij"
  )
  flow = jnp.asarray(np.broadcast_to(np.stack([x, y], -1), (B, HU, WU, 2)), jnp.float32)
  np.testing.assert_allclose(assemble.uv_texture(image, flow), image, atol=1e-5)


def test_texels_match_the_golden_sampling(golden_geometry):
  image = jnp.asarray(golden_geometry["texture/image"].transpose(0, 2, 3, 1), jnp.float32)
  flow = golden_geometry["texture/flow"]
  expected = golden_geometry["texture/sampled"]
  batch, faces = flow.shape[:2]
  found = assemble.sample_texels(image, jnp.asarray(flow.reshape(batch, faces, -1, 2)))
  np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=1e-4, atol=1e-5)


def test_part_texels_keep_summing_to_one(topology, rng):
  logits = jnp.asarray(rng.normal(size=(HU, WU, 5)), jnp.float32)
  texels = assemble.uv_parts_to_texels(jax.nn.softmax(logits), topology)
  assert texels.shape == (topology.num_faces, 9, 5)
  np.testing.assert_allclose(texels.sum(axis=-1), 1.0, rtol=1e-5)


def test_flow_and_image_get_finite_gradients(topology, rng):
  flow_map = jnp.asarray(rng.uniform(-1.2, 1.2, (B, HU, WU, 2)), jnp.float32)
  image = jnp.asarray(rng.random((B, 20, 20, 3)), jnp.float32)

  def total(flow_map, image):
    flow = assemble.face_flow(flow_map, topology)
    return jnp.sum(jnp.sin(assemble.sample_texels(image, flow)))

  for gradient in jax.grad(total, (0, 1))(flow_map, image):
    assert np.isfinite(gradient).all()
    assert np.any(np.asarray(gradient) != 0.0)


@pytest.mark.parametrize(("symmetric", "least", "most"), [(True, 0.4, 0.7), (False, 0.9, 1.0)])
def test_what_is_not_read_of_a_uv_map_reaches_no_mesh(rng, symmetric, least, most):
  topology = build_topology(2, texels_per_side=4, symmetric_texture=symmetric)
  read = assemble.read_uv_pixels(topology, uv_height=16)
  assert least < read.mean() <= most
  canonical_uv = rng.dirichlet(np.ones(3), read.shape).astype(np.float32)
  noise = rng.dirichlet(np.ones(3), read.shape).astype(np.float32)

  def reads(maps):
    maps = jnp.asarray(maps)
    return assemble.uv_parts_to_texels(maps, topology), assemble.part_vertices(maps, topology)

  kept = reads(np.where(read[..., None], canonical_uv, noise))
  for ours, theirs in zip(kept, reads(canonical_uv), strict=True):
    np.testing.assert_array_equal(ours, theirs)
  row, column = np.argwhere(read)[len(np.argwhere(read)) // 2]
  changed = canonical_uv.copy()
  changed[row, column] = changed[row, column, ::-1] + 1.0
  assert (np.asarray(reads(changed)[0]) != np.asarray(reads(canonical_uv)[0])).any()
