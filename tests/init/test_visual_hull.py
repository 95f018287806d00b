"""Volumes: their drawings, what they are fitted to, the mesh around them, cameras in turns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from tests.rotations import degrees_between
from umr_jax.geometry import camera, quaternion
from umr_jax.geometry.symmetry import symmetrize
from umr_jax.geometry.topology import build_topology
from umr_jax.init.hull_search import fit_hull_and_cameras, with_hull_template
from umr_jax.init.pose_search import PoseSearch, score_views, view_rotations
from umr_jax.init.shrink_wrap import hull_canonical_uv, shrink_wrap, surface_points
from umr_jax.init.silhouettes import inflate, init_canonical_uv, mean_profile
from umr_jax.init.state import bare_em_state
from umr_jax.init.visual_hull import (
  HALF,
  RESOLUTION,
  Volume,
  batch_rows,
  empty_logits,
  filled,
  fit_volume,
  render_volume,
  surface_level,
  volume_from_logits,
  volume_views,
)
from umr_jax.models.assemble import with_canonical_uv
from umr_jax.models.camera_heads import upright_rotation
from umr_jax.render import soft_silhouette
from umr_jax.types import Batch

SIZE = 32
SEARCH = PoseSearch(elevation=(-10.0, 40.0), roll=10.0, evenness=0.5)


@pytest.fixture(scope="module")
def topology():
  return build_topology(3, texels_per_side=2, symmetric_texture=True)


@pytest.fixture(scope="module")
def coarse():
  """For tests in which the mesh is there to be made: wrapping a fine one takes most of a minute."""
  return build_topology(2, texels_per_side=2, symmetric_texture=True)


@pytest.fixture(autouse=True)
def standard_promotion():
  """Optax multiplies float32 by int32."""
  with jax.numpy_dtype_promotion("standard"):
    yield


@pytest.fixture(scope="module")
def plane():
  """A body, thick in front, two wings and a fin: three parts, and the body's tail a fourth."""
  at = HALF * ((2.0 * np.arange(RESOLUTION) + 1.0) / RESOLUTION - 1.0)
  x, y, z = np.meshgrid(at, at, at, indexing="ij")
  thick = 0.17 + 0.05 * x
  body = (np.abs(x) < 0.9) & (np.hypot(y, z) < thick)
  wings = (np.abs(x - 0.1) < 0.2) & (np.abs(y) < 0.75) & (np.abs(z) < 0.08)
  fin = (np.abs(x + 0.7) < 0.15) & (np.abs(y) < 0.08) & (z > 0.0) & (z < 0.5)
  label = np.where(fin, 3, np.where(body, np.where(x > 0.3, 1, 4), 2))
  opacity = 0.99 * (body | wings | fin)
  parts = np.stack([label == p for p in (1, 2, 3, 4)], axis=-1)
  return Volume(jnp.asarray(opacity, jnp.float32), jnp.asarray(parts, jnp.float32))


@pytest.fixture(scope="module")
def shown(plane):
  """The plane from many sides: silhouettes and part maps [N, S, S, 1 + 5], and the cameras."""
  rng = np.random.default_rng(0)
  angles = [rng.uniform(low, high, 64) for low, high in ((0, 360), (-10, 40), (-5, 5))]
  turns = upright_rotation(*(jnp.asarray(a, jnp.float32) for a in angles))
  place = jnp.tile(jnp.array([[0.9, 0.05, -0.03]]), (64, 1))
  cameras = jnp.concatenate([place, turns], axis=-1)
  alpha, parts = render_volume(plane, cameras, size=SIZE)
  mask = (alpha > 0.5).astype(jnp.float32)
  parts = parts * mask[..., None]
  maps = jnp.concatenate([mask[..., None], 1.0 - mask[..., None], parts], axis=-1)
  return np.asarray(maps), np.asarray(cameras)


def test_a_ball_is_drawn_as_the_rasterizer_draws_its_mesh(topology):
  at = HALF * ((2.0 * np.arange(RESOLUTION) + 1.0) / RESOLUTION - 1.0)
  x, y, z = np.meshgrid(at, at, at, indexing="ij")
  ball = 0.95 * (x**2 + y**2 + z**2 < 0.6**2)
  volume = Volume(jnp.asarray(ball, jnp.float32), jnp.zeros((*ball.shape, 0)))
  cameras = jnp.array([[0.8, 0.2, -0.3, 1.0, 0.0, 0.0, 0.0], [1.2, 0.0, 0.1, 0.6, 0.0, 0.8, 0.0]])
  alpha, parts = render_volume(volume, cameras, size=SIZE)
  assert parts.shape == (2, SIZE, SIZE, 0)
  vertices = jnp.broadcast_to(0.6 * jnp.asarray(topology.sphere)[None], (2, 642, 3))
  faces = camera.face_vertices(camera.project(vertices, cameras), topology.faces)
  meshes = soft_silhouette(faces, image_size=SIZE, sigma=1e-5)
  # A cell is 0.8 pixels wide, and a ray is stopped before it meets the middle of one.
  assert float(jnp.mean(jnp.abs(alpha - meshes))) < 0.05
  inner = (0.5 + 0.5 * jnp.sign(meshes - 0.99)) * (1.0 - alpha)
  assert float(jnp.max(inner)) < 0.1


def test_what_is_in_front_hides_what_is_behind(plane):
  turns = upright_rotation(jnp.array([0.0, 180.0]), jnp.zeros(2), jnp.zeros(2))
  cameras = jnp.concatenate([jnp.tile(jnp.array([[0.9, 0.0, 0.0]]), (2, 1)), turns], axis=-1)
  alpha, parts = render_volume(plane, cameras, size=SIZE)
  np.testing.assert_allclose(parts.sum(-1), alpha, atol=1e-5)
  areas = np.asarray(parts.sum((1, 2)))
  np.testing.assert_allclose(areas[0], areas[1], rtol=1e-3)  # both sides are alike
  ends = upright_rotation(jnp.array([90.0, 270.0]), jnp.zeros(2), jnp.zeros(2))
  cameras = cameras.at[:, 3:].set(ends)
  front = np.asarray(render_volume(plane, cameras, size=SIZE)[1].sum((1, 2)))
  # The nose is seen from one end alone, the tail from the other.
  assert sorted([front[0, 0] > 5.0, front[1, 0] > 5.0]) == [False, True]
  assert (front[0, 0] > front[1, 0]) == (front[0, 3] < front[1, 3])


@pytest.mark.parametrize(("count", "size"), [(5, 5), (32, 32), (50, 32), (100, 32)])
def test_no_batch_holds_an_image_twice(count, size):
  rows = np.asarray(batch_rows(count, key=jax.random.key(0), steps=60))
  assert rows.shape == (60, size)
  assert (np.diff(np.sort(rows, axis=1), axis=1) > 0).all()
  times = np.bincount(rows.ravel(), minlength=count)
  assert times.shape == (count,) and times.min() > 0.5 * times.mean()


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_silhouettes_from_rough_cameras_grow_wings(plane, shown, topology, rng):
  maps, cameras = shown
  rough = cameras + np.concatenate(
    [0.03 * rng.normal(size=(64, 3)), 0.03 * rng.normal(size=(64, 4))], axis=1
  )
  rough[:, 3:] /= np.linalg.norm(rough[:, 3:], axis=1, keepdims=True)
  logits, found, overlaps = fit_volume(
    empty_logits(4),
    jnp.asarray(rough, jnp.float32),
    jnp.asarray(maps[..., 0]),
    jnp.asarray(maps[..., 2:]),
    cost=jnp.zeros((RESOLUTION, RESOLUTION, RESOLUTION)),
    key=jax.random.key(0),
    steps=100,
  )
  assert overlaps[0] > 0.75 and overlaps[1] > 0.6
  np.testing.assert_allclose(np.linalg.norm(found[:, 3:], axis=1), 1.0, atol=1e-5)
  before, after = (np.median(degrees_between(c[:, 3:], cameras[:, 3:])) for c in (rough, found))
  assert after < 0.8 * before
  volume = volume_from_logits(logits)
  np.testing.assert_allclose(volume.opacity, volume.opacity[:, ::-1], atol=1e-6)
  level = surface_level(volume, found, maps[..., 0])
  occupied, true = np.asarray(volume.opacity) > level, np.asarray(plane.opacity) > 0.5
  # Walls of two cells: half a cell beside the truth, where nothing in the images fixes the frame.
  assert (occupied & true).sum() / (occupied | true).sum() > 0.45

  half = shrink_wrap(*surface_points(np.asarray(volume.opacity), level=level), topology)
  vertices = np.asarray(symmetrize(half, num_center=topology.num_center))
  np.testing.assert_allclose(np.ptp(vertices, axis=0), [1.8, 1.5, 0.65], rtol=0.3)
  assert _inside_out(vertices, topology, plane) < 0.02
  uv = hull_canonical_uv(volume, half, topology, uv_height=16)
  np.testing.assert_allclose(uv.sum(-1), 1.0, atol=1e-4)
  assert (uv[..., 0] == 0.0).all()
  assert set(np.unique(uv.argmax(-1))) == {1, 2, 3, 4}


@pytest.mark.usefixtures("optimized")
def test_the_views_of_a_volume_find_its_own_cameras(plane, shown):
  maps, cameras = shown
  views = volume_views(plane, view_rotations(SEARCH.elevation, SEARCH.roll))
  batch = Batch(
    image=jnp.zeros((64, SIZE, SIZE, 3)),
    mask=jnp.asarray(maps[..., 0]),
    barrier=jnp.zeros((64, SIZE, SIZE)),
    index=jnp.arange(64),
    valid=jnp.ones(64, bool),
    parts=jnp.asarray(maps[..., 1:]),
  )
  scores = jax.jit(score_views)(views, batch)
  best = jnp.argmax(scores.values, axis=1)
  assert np.median(degrees_between(views.rotations[best], cameras[:, 3:])) < 12.0
  places = np.asarray(scores.scale_shift)[np.arange(64), np.asarray(best)]
  np.testing.assert_allclose(np.median(places, axis=0), [0.9, 0.05, -0.03], atol=0.05)


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_cameras_and_volume_find_each_other(shown, coarse):
  maps, cameras = shown
  profile = mean_profile(maps)
  half = inflate(profile[..., 0], coarse, width=0.5)
  uv = init_canonical_uv(profile[..., 1:], half, coarse, uv_height=16)
  start = with_canonical_uv(bare_em_state(half), uv, topology=coarse)
  volume, found = fit_hull_and_cameras(
    maps, start, coarse, search=SEARCH, turns=2, cost=0.0, key=jax.random.key(0)
  )
  assert np.median(degrees_between(found[:, 3:], _facing(found, cameras)[:, 3:])) < 11.0
  state = with_hull_template(start, volume, found, maps[..., 0], coarse, uv_height=16)
  assert np.ptp(np.asarray(state.template.half_vertices)[:, 1]) > 0.5
  assert state.canonical_uv.shape == (16, 32, 5)


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_silhouettes_alone_make_a_volume_without_parts(shown, coarse):
  maps = shown[0][:8]
  half = inflate(mean_profile(maps)[..., 0], coarse, width=0.5)
  bare, found = fit_hull_and_cameras(
    maps[..., :1],
    bare_em_state(half),
    coarse,
    search=SEARCH,
    turns=1,
    cost=0.0,
    key=jax.random.key(0),
  )
  assert bare.parts.shape[-1] == 0 and found.shape == (8, 7)
  assert (
    with_hull_template(
      bare_em_state(half), bare, found, maps[..., 0], coarse, uv_height=16
    ).canonical_uv
    is None
  )


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_what_no_image_tells_stays_as_wide_as_the_first_template(plane, topology):
  sides = upright_rotation(jnp.tile(jnp.array([0.0, 180.0]), 16), jnp.zeros(32), jnp.zeros(32))
  cameras = jnp.concatenate([jnp.tile(jnp.array([[0.9, 0.0, 0.0]]), (32, 1)), sides], axis=-1)
  maps = np.asarray(render_volume(plane, cameras, size=SIZE)[0] > 0.5, np.float32)[..., None]
  half = inflate(mean_profile(maps)[..., 0], topology, width=0.4)
  widths = []
  for cost in (0.0, 0.4):
    volume, _ = fit_hull_and_cameras(
      maps, bare_em_state(half), topology, search=SEARCH, turns=1, cost=cost, key=jax.random.key(0)
    )
    across = np.flatnonzero((np.asarray(volume.opacity) > 0.3).any(axis=(0, 2)))
    widths.append(np.ptp(across) * 2.0 * HALF / RESOLUTION)
  assert widths[0] > 1.5 and widths[1] < 1.2 * np.ptp(half[:, 0]) * 0.4


@pytest.mark.usefixtures("optimized")
def test_what_no_silhouette_shows_to_be_empty_is_full():
  at = HALF * ((2.0 * np.arange(RESOLUTION) + 1.0) / RESOLUTION - 1.0)
  x, y, z = np.meshgrid(at, at, at, indexing="ij")
  inside = (np.abs(x) < 0.9) & (np.abs(y) < 0.4) & (np.abs(z) < 0.3)
  hollow = (np.abs(x) < 0.7) & (np.abs(y) < 0.2) & (np.abs(z) < 0.15)
  trough = (np.abs(x) < 0.6) & (np.abs(y) < 0.2) & (z > 0.1)
  notch = (np.abs(x) < 0.2) & (z > 0.05)  # open to the sides: silhouettes show it
  opacity = jnp.asarray(0.8 * (inside & ~hollow & ~trough & ~notch), jnp.float32)
  full = np.asarray(filled(opacity, level=jnp.float32(0.5))) > 0.5
  assert full[hollow & ~notch].mean() > 0.97
  assert full[inside & trough & ~notch & (z < 0.2)].mean() > 0.9
  assert not full[notch & inside & (np.abs(x) < 0.1) & (z > 0.2)].any()
  assert full[~inside].mean() < 0.01
  assert (np.asarray(opacity) > 0.5).sum() < (full & inside).sum()


def _inside_out(vertices, topology, volume):
  """The share of a mesh's surface whose faces look into the volume."""
  corners = vertices[topology.outward_faces]
  normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
  area = np.linalg.norm(normals, axis=1)
  blurred = ndimage.gaussian_filter(np.asarray(volume.opacity), 1.5)
  steps = 0.06 * normals / np.maximum(area, 1e-9)[:, None]
  outside, inside = (
    ndimage.map_coordinates(
      blurred, (0.5 * RESOLUTION * ((corners.mean(axis=1) + s) / HALF + 1.0) - 0.5).T, order=1
    )
    for s in (steps, -steps)
  )
  return area[outside > inside].sum() / area.sum()


def _facing(found, cameras):
  """The true cameras of the object, or of the object turned around: nobody knows its front."""
  turned = np.asarray(cameras).copy()
  half_turn = jnp.broadcast_to(jnp.array([0.0, 0.0, 0.0, 1.0]), (len(cameras), 4))
  turned[:, 3:] = quaternion.multiply(jnp.asarray(cameras[:, 3:]), half_turn)
  options = (cameras, turned)
  return min(options, key=lambda c: np.median(degrees_between(found[:, 3:], c[:, 3:])))
