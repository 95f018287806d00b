"""The search for cameras: it finds planted views, and lays boxes upon boxes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.rotations import degrees_between
from umr_jax.geometry import camera, quaternion
from umr_jax.geometry.symmetry import halve
from umr_jax.geometry.topology import build_topology
from umr_jax.geometry.uv import uv_directions
from umr_jax.init.pose_search import (
  Views,
  ViewScores,
  find_cameras,
  make_views,
  score_views,
  select_cameras,
  template_vertices,
  view_rotations,
)
from umr_jax.init.state import bare_em_state
from umr_jax.models.assemble import uv_parts_to_texels, with_canonical_uv
from umr_jax.models.camera_heads import upright_rotation
from umr_jax.render import soft_rasterize, soft_silhouette
from umr_jax.types import Batch

SIZE = 48


@pytest.fixture(scope="module")
def topology():
  return build_topology(2, texels_per_side=2, symmetric_texture=True)


@pytest.fixture(scope="module")
def em_state(topology):
  """A long egg, thick in front, whose front, back and rest are parts."""
  sphere = np.asarray(topology.sphere)
  vertices = sphere * np.array([0.9, 0.35, 0.45]) * (1.0 + 0.4 * sphere[:, :1])
  x, _, z = np.moveaxis(uv_directions(16), -1, 0)
  front, top = x > 0.6, (z > 0.3) & (x <= 0.6)
  maps = np.stack([0 * x, front, top, ~front & ~top], axis=-1).astype(np.float32)
  state = bare_em_state(np.asarray(halve(vertices, num_center=topology.num_center), np.float32))
  return with_canonical_uv(state, maps, topology=topology)


def views(em_state, topology, azimuth, elevation):
  """Images of the egg's parts from known views, shifted and scaled."""
  half = em_state.template.half_vertices
  mirrored = half[topology.num_center :] * np.array([1, -1, 1])
  vertices = jnp.asarray(np.concatenate([half, mirrored]), jnp.float32)
  turns = upright_rotation(jnp.asarray(azimuth), jnp.asarray(elevation), 0.0 * jnp.asarray(azimuth))
  count = len(azimuth)
  place = jnp.tile(jnp.array([[0.7, 0.1, -0.05]]), (count, 1))
  cameras = jnp.concatenate([place, turns], axis=-1)
  faces = camera.face_vertices(
    camera.project(jnp.broadcast_to(vertices[None], (count, *vertices.shape)), cameras),
    topology.faces,
  )
  texels = uv_parts_to_texels(jnp.asarray(em_state.canonical_uv), topology)
  texels = jnp.broadcast_to(texels[None], (count, *texels.shape))
  seen = soft_rasterize(faces, texels, image_size=SIZE, sigma=1e-5, aggr_rgb="hard", antialias=2)
  mask = (seen[..., -1] > 0.5).astype(jnp.float32)
  shown = seen[..., 1:-1] * mask[..., None]
  parts = jnp.concatenate([1.0 - shown.sum(-1, keepdims=True), shown], axis=-1)
  image = jnp.zeros((count, SIZE, SIZE, 3))
  index, valid = jnp.arange(count), jnp.ones(count, bool)
  batch = Batch(image=image, mask=mask, barrier=mask, index=index, valid=valid, parts=parts)
  return batch, cameras


@pytest.fixture(scope="module")
def find(topology):
  """The cameras that a search with the template finds."""
  draw = jax.jit(make_views(topology, elevation=(-10.0, 40.0), roll=20.0))
  score = jax.jit(score_views)

  def found(em_state, batch):
    drawn = draw(template_vertices(em_state, topology), em_state.canonical_uv)
    scores = score(drawn, batch)
    np.testing.assert_array_equal(scores.index, batch.index)
    return find_cameras([scores], drawn.rotations, count=len(batch.index), evenness=0.0)

  return found


AZIMUTH = np.arange(0.0, 360.0, 30.0).astype(np.float32)


def test_planted_views_are_found_by_their_parts(em_state, topology, find):
  elevation = np.tile(np.array([0.0, 25.0], np.float32), 6)
  batch, cameras = views(em_state, topology, AZIMUTH, elevation)
  found = find(em_state, batch)
  angle = degrees_between(found[:, 3:], cameras[:, 3:])
  assert np.median(angle) < 16.0 and np.max(angle) < 45.0
  np.testing.assert_allclose(found[:, 0], 0.7, rtol=0.15)
  np.testing.assert_allclose(found[:, 1:3], cameras[:, 1:3], atol=0.08)


def test_without_parts_silhouettes_are_compared(em_state, topology, find):
  batch, cameras = views(em_state, topology, AZIMUTH, np.full(12, 10.0, np.float32))
  bare = dataclasses.replace(batch, parts=None)
  found = find(em_state, bare)[:, 3:]
  angle = degrees_between(found, cameras[:, 3:])
  # From in front and from behind an egg looks the same; from the side it does not.
  assert np.mean(angle < 25.0) >= 0.4
  # An image whose part map is missing is treated like that among others.
  some = dataclasses.replace(batch, parts=batch.parts.at[:3].set(0.0))
  np.testing.assert_allclose(find(em_state, some)[:3, 3:], found[:3], atol=1e-6)


def test_of_views_with_the_same_parts_the_one_with_the_silhouette_scores_higher():
  """A square whose upper half is the only part; one view has half of the rest, and one has it."""
  mask = np.zeros((1, SIZE, SIZE), np.float32)
  mask[:, 17:31, 17:31] = 1.0
  part = mask * (np.arange(SIZE) < 24).reshape(1, -1, 1)
  batch = Batch(
    image=np.zeros((1, SIZE, SIZE, 3), np.float32),
    mask=mask,
    barrier=mask,
    index=np.zeros(1, np.int32),
    valid=np.ones(1, bool),
    parts=np.stack([1.0 - part, part], axis=-1),
  )
  # In the frame: the square is 48 / (2 * 1.7) pixels wide, about its centre.
  inside = abs(np.arange(SIZE) + 0.5 - 24.0) < 24.0 / 1.7 / 2.0
  square = inside[:, None] & inside[None]
  upper = square & (np.arange(SIZE) < 24)[:, None]
  whole = np.where(upper, 1, np.where(square, 0, -1))
  less = np.where(square & ~upper & (np.arange(SIZE) < 24)[None], -1, whole)
  seen = Views(
    labels=jnp.asarray(np.stack([whole, less]), jnp.int8),
    centers=jnp.zeros((2, 2)),
    sides=jnp.ones(2),
    rotations=view_rotations((0.0, 40.0), 0.0)[:2],
    parted=True,
  )
  fitting, lacking = np.asarray(score_views(seen, jax.tree.map(jnp.asarray, batch)).values)[0]
  # The parts' share is the same; of the silhouette three quarters are there.
  np.testing.assert_allclose(fitting - lacking, 0.25 * np.log(1.05 / 0.8), rtol=0.2)


def test_silhouettes_meet_in_their_centres_and_areas(em_state, topology, find):
  masks = np.zeros((2, SIZE, SIZE), np.float32)
  masks[0, 10:30, 5:45] = 1.0
  masks[1, 2:47, 20:30] = 1.0
  batch, _ = views(em_state, topology, AZIMUTH[:2], np.zeros(2, np.float32))
  batch = dataclasses.replace(batch, mask=jnp.asarray(masks), parts=None)
  cameras = find(em_state, batch)
  vertices = jnp.tile(template_vertices(em_state, topology)[None], (2, 1, 1))
  faces = camera.face_vertices(camera.project(vertices, cameras), topology.faces)
  alpha = np.asarray(soft_silhouette(faces, image_size=96, sigma=1e-6))
  where = (2.0 * np.arange(96) + 1.0) / 96 - 1.0
  for image, (middle, area) in enumerate([((2 / 48, -8 / 48), 800), ((2 / 48, 1 / 48), 450)]):
    mass = alpha[image].sum()
    center = (alpha[image].sum(0) @ where / mass, alpha[image].sum(1) @ where / mass)
    np.testing.assert_allclose(center, middle, atol=0.02)
    np.testing.assert_allclose(mass / 96**2, area / 48**2, rtol=0.08)


def test_an_empty_mask_gives_a_finite_camera(em_state, topology, find):
  batch, _ = views(em_state, topology, AZIMUTH[:2], np.zeros(2, np.float32))
  bare = dataclasses.replace(batch, mask=0.0 * batch.mask)
  assert np.isfinite(find(em_state, bare)).all()


def test_views_stay_within_their_bounds():
  turns = quaternion.to_matrix(view_rotations((-20.0, 40.0), 20.0))
  # The height of the viewer above the object's horizon.
  height = np.degrees(np.arcsin(-np.asarray(turns)[:, 2, 2]))
  np.testing.assert_allclose(np.unique(np.round(height, 2)), [-12.5, 2.5, 17.5, 32.5], atol=0.01)
  upright = quaternion.to_matrix(view_rotations((-20.0, 40.0), 0.0))
  lean = np.degrees(np.arccos(np.clip(np.einsum("kij,kij->k", turns, upright) / 2 - 0.5, -1, 1)))
  np.testing.assert_allclose(np.unique(np.round(lean, 1)), [0.0, 8.0], atol=0.05)


# From scores to cameras.

ROTATIONS = view_rotations((-10.0, 40.0), 0.0)


def angles(a, b):
  return np.degrees(2.0 * np.arccos(np.clip(abs(np.sum(np.asarray(a) * np.asarray(b), -1)), 0, 1)))


def scored(rng, *, count=200, blur=20.0):
  """Images from random views of the grid, and scores that fall off with the angle."""
  true = rng.integers(0, len(ROTATIONS), count)
  gaps = angles(ROTATIONS[None], ROTATIONS[true][:, None])
  values = -((gaps / blur) ** 2) * 0.1 + 0.02 * rng.standard_normal(gaps.shape)
  return true, jnp.asarray(values, jnp.float32)


def places_of(values):
  """A place for each image and view that says which image and view it is."""
  rows, columns = np.indices(values.shape)
  return jnp.asarray(np.stack([1.0 + 0 * rows, rows, columns], -1), jnp.float32)


def test_the_best_view_says_where(rng):
  true, values = scored(rng)
  values = values.at[np.arange(len(true)), true].add(1.0)
  cameras = np.asarray(select_cameras(values, places_of(values), ROTATIONS, evenness=0.0))
  np.testing.assert_array_equal(cameras[:, 1], np.arange(len(true)))
  np.testing.assert_array_equal(cameras[:, 2], true)
  # One far ahead of all others: nothing is averaged.
  np.testing.assert_allclose(angles(cameras[:, 3:], ROTATIONS[true]), 0.0, atol=0.1)


def test_views_that_suit_everything_draw_no_more_than_others(rng):
  true, values = scored(rng)
  attraction = np.zeros(len(ROTATIONS))
  attraction[:12] = 0.5
  spoilt = values + jnp.asarray(attraction, jnp.float32)[None]
  scale_shift = places_of(values)
  errors = [
    np.mean(angles(select_cameras(v, scale_shift, ROTATIONS, evenness=e)[:, 3:], ROTATIONS[true]))
    for v, e in ((values, 0.0), (spoilt, 0.0), (spoilt, 0.5), (spoilt, 1.0))
  ]
  assert errors[1] > errors[2] > errors[3] and errors[1] > 1.5 * errors[0]
  # What is left of the pull is small beside what it was.
  assert errors[3] - errors[0] < 0.2 * (errors[1] - errors[0])


def test_around_the_best_view_the_mean_is_nearer_than_the_grid(rng):
  """Views between the grid's, whose neighbours score alike."""
  true, _ = scored(rng, count=300)
  turn = quaternion.from_axis_angle(jnp.array([[0.0, 0.0, 1.0]]), jnp.deg2rad(jnp.array([7.5])))
  between = quaternion.multiply(ROTATIONS[true], jnp.broadcast_to(turn, (len(true), 4)))
  gaps = angles(ROTATIONS[None], between[:, None])
  values = jnp.asarray(-((gaps / 20.0) ** 2) * 0.1, jnp.float32)
  cameras = select_cameras(values, places_of(values), ROTATIONS, evenness=0.0)
  nearest = angles(ROTATIONS[np.argmax(values, axis=1)], between)
  assert np.median(angles(cameras[:, 3:], between)) < 0.8 * np.median(nearest)


def test_signs_of_quaternions_do_not_matter(rng):
  _, values = scored(rng)
  signs = jnp.asarray(rng.choice([-1.0, 1.0], (len(ROTATIONS), 1)), jnp.float32)
  scale_shift = places_of(values)
  one = select_cameras(values, scale_shift, ROTATIONS, evenness=0.5)[:, 3:]
  other = select_cameras(values, scale_shift, signs * ROTATIONS, evenness=0.5)[:, 3:]
  np.testing.assert_allclose(angles(one, other), 0.0, atol=0.1)


@pytest.mark.parametrize("evenness", [0.0, 0.5, 1.0])
def test_one_image_alone_has_a_camera(evenness):
  values = jnp.zeros((1, len(ROTATIONS))).at[0, 7].set(1.0)
  camera = select_cameras(values, places_of(values), ROTATIONS, evenness=evenness)
  assert camera.shape == (1, 7) and np.isfinite(camera).all()


def test_batches_of_any_order_and_padding_give_the_cameras_of_all_images_at_once(rng):
  _, values = scored(rng, count=10)
  scale_shift = places_of(values)
  expected = select_cameras(values, scale_shift, ROTATIONS, evenness=0.5)
  order = rng.permutation(10)
  batches = [
    ViewScores(
      index=jnp.asarray(rows, jnp.int32),
      valid=jnp.arange(len(rows)) < valid,
      values=values[rows],
      scale_shift=scale_shift[rows],
    )
    for rows, valid in ((order[:6], 6), (np.append(order[6:], order[:2]), 4))
  ]
  # What pads a batch is not read.
  batches[1] = dataclasses.replace(batches[1], values=batches[1].values.at[4:].set(9.0))
  found = find_cameras(batches, ROTATIONS, count=10, evenness=0.5)
  np.testing.assert_array_equal(found, expected)
