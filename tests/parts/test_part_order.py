"""Parts have numbers, not meanings: in another order they give the same cameras and losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.geometry.topology import build_topology
from umr_jax.init.pose_search import FRAME, Views, score_views, view_rotations
from umr_jax.init.silhouettes import init_canonical_uv
from umr_jax.losses.semantic import part_probability_loss, part_vertices_loss
from umr_jax.types import Batch

PARTS = 4
# What was part p + 1 is at the place of ORDER's p.
ORDER = np.array([2, 0, 3, 1])


def renamed(labels):
  """Labels, 0 and below for no part, under the new order."""
  new = np.argsort(ORDER)
  return np.where(labels > 0, 1 + new[np.maximum(labels, 1) - 1], labels)


def reordered(maps):
  """Part maps, background first, in the new order."""
  maps = np.asarray(maps)
  return np.concatenate([maps[..., :1], maps[..., 1:][..., ORDER]], axis=-1)


@pytest.fixture
def maps(rng):
  """[6, 24, 24, P + 1]: blobs; of the first image one part is missing."""
  y, x = np.mgrid[:24, :24] / 12.0 - 1.0
  places = rng.uniform(-0.5, 0.5, (6, 1, 1, PARTS, 2))
  gaps = np.square(x[..., None] - places[..., 0]) + np.square(y[..., None] - places[..., 1])
  shares = np.exp(-20.0 * gaps)
  shares[0, ..., 2] = 0.0
  shares /= np.maximum(shares.sum(-1, keepdims=True), 1.0)
  return np.concatenate([1.0 - shares.sum(-1, keepdims=True), shares], -1).astype(np.float32)


def test_the_probability_term(maps):
  present = (maps[..., 1:].sum(axis=(1, 2)) > 1.0).astype(np.float32)
  target, drawn = maps[..., 1:], np.roll(maps, (1, 3), axis=(0, 2))[..., 1:]
  loss, again = (
    part_probability_loss(
      rendered=jnp.asarray(drawn[..., order]),
      target=jnp.asarray(target[..., order]),
      present=jnp.asarray(present[:, order]),
    )
    for order in (np.arange(PARTS), ORDER)
  )
  assert (np.asarray(loss) > 0.0).all()
  np.testing.assert_allclose(again, loss, rtol=1e-5)


def test_the_vertex_term(rng):
  projected, points = (
    rng.uniform(-1.0, 1.0, shape).astype(np.float32) for shape in ((3, 2, 20, 2), (3, PARTS, 7, 2))
  )
  labels = rng.integers(0, PARTS + 1, 20)
  present = np.array([[1, 1, 1, 1], [0, 1, 0, 1], [1, 0, 0, 0]], np.float32)
  loss, again = (
    part_vertices_loss(
      projected=jnp.asarray(projected),
      labels=jnp.asarray(names),
      points=jnp.asarray(places),
      present=jnp.asarray(there),
    )
    for names, places, there in (
      (labels, points, present),
      (renamed(labels), points[:, ORDER], present[:, ORDER]),
    )
  )
  assert (np.asarray(loss) > 0.0).all()
  np.testing.assert_allclose(again, loss, rtol=1e-5)


def test_the_search_for_views(maps, rng):
  mask = 1.0 - maps[..., 0]
  labels = rng.integers(-1, PARTS + 1, (3, FRAME // 8, FRAME // 8)).repeat(8, 1).repeat(8, 2)

  score = jax.jit(score_views)

  def scored(labels, maps):
    views = Views(
      labels=jnp.asarray(labels, jnp.int8),
      centers=jnp.zeros((3, 2)),
      sides=jnp.ones(3),
      rotations=view_rotations((0.0, 40.0), 5.0)[:3],
      parted=True,
    )
    batch = Batch(
      image=jnp.zeros((6, 24, 24, 3)),
      mask=jnp.asarray(mask),
      barrier=jnp.asarray(mask),
      index=jnp.arange(6),
      valid=jnp.ones(6, bool),
      parts=jnp.asarray(maps),
    )
    return score(views, batch)

  scores, again = scored(labels, maps), scored(renamed(labels), reordered(maps))
  assert np.ptp(scores.values, axis=1).min() > 0.0
  np.testing.assert_allclose(again.values, scores.values, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(again.scale_shift, scores.scale_shift, rtol=1e-5, atol=1e-6)
  # The parts are looked at: with other parts the scores are others.
  assert not np.allclose(scored(labels, reordered(maps)).values, scores.values, atol=1e-3)


def test_the_first_canonical_map(maps):
  topology = build_topology(1, texels_per_side=2, symmetric_texture=True)
  half = topology.sphere[: topology.num_half]
  found, again = (
    init_canonical_uv(parts, half, topology, uv_height=16)
    for parts in (maps[1], reordered(maps[1]))
  )
  np.testing.assert_allclose(again, reordered(found), rtol=1e-5, atol=1e-6)
  assert not np.allclose(again, found, atol=1e-2)
