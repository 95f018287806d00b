"""Selective aggregation: the right images, whatever the cut into batches."""

import numpy as np
import pytest

from umr_jax.em.aggregate import Exemplars, Ranking, SufficientStatistics, aggregate
from umr_jax.em.image_statistics import ImageStatistics
from umr_jax.geometry.topology import build_topology
from umr_jax.models.assemble import read_uv_pixels

N, S, VH, UV, P1 = 11, 6, 5, (4, 8), 3
READ = np.ones(UV, bool)


@pytest.fixture
def measured(rng):
  return ImageStatistics(
    index=np.arange(N),
    valid=np.ones(N, bool),
    silhouette_iou=rng.uniform(size=N).astype(np.float32),
    texture_distance=rng.uniform(size=N).astype(np.float32),
    silhouette=rng.uniform(size=(N, S, S)).astype(np.float32),
    half_offsets=rng.normal(size=(N, VH, 3)).astype(np.float32),
    uv_parts=rng.dirichlet(np.ones(P1), (N, *UV)).astype(np.float32),
  )


def take(measured, rows):
  return ImageStatistics(
    **{
      name: None if value is None else value[np.asarray(rows)]
      for name, value in vars(measured).items()
    }
  )


def naive(measured, k):
  """The definition, written as loops over a whole data set."""

  def iou(a, b):
    return (a * b).sum() / (a + b - a * b).sum()

  best = int(np.argmax(measured.silhouette_iou))
  like = [iou(s, measured.silhouette[best]) for s in measured.silhouette]
  q = sorted(range(N), key=lambda i: -like[i])[:k]
  clearest = int(np.argmin(measured.texture_distance))
  gap = [np.linalg.norm(p - measured.uv_parts[clearest]) for p in measured.uv_parts]
  u = sorted(range(N), key=lambda i: gap[i])[:k]
  return q, u, measured.half_offsets[q].mean(0), measured.uv_parts[u].mean(0)


@pytest.mark.parametrize("k", [1, 4, N])
def test_means_are_those_of_the_definition(measured, k):
  _, _, offset, parts = naive(measured, k)
  statistics = aggregate(lambda: iter([measured]), read=READ, k=k)
  got_offset, got_parts = statistics.finalize()
  np.testing.assert_allclose(got_offset, offset, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(got_parts, parts, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cut", [1, 2, 4, 7])
def test_the_cut_into_batches_does_not_matter(measured, cut):
  whole = aggregate(lambda: iter([measured]), read=READ, k=4)
  batches = [take(measured, range(i, min(i + cut, N))) for i in range(0, N, cut)]
  parts = aggregate(lambda: iter(batches), read=READ, k=4)
  shuffled = aggregate(lambda: iter(batches[::-1]), read=READ, k=4)
  for other in (parts, shuffled):
    for ours, theirs in zip(whole.finalize(), other.finalize(), strict=True):
      np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("memory", "calls"), [(1 << 20, 1), (0, 3), (700, 3)])
def test_statistics_are_kept_only_where_there_is_room(measured, memory, calls, monkeypatch):
  monkeypatch.setattr("umr_jax.em.aggregate._MEMORY", memory)
  batches = [take(measured, [i]) for i in range(N)]
  seen = []

  def compute():
    seen.append(1)
    yield from batches

  statistics = aggregate(compute, read=READ, k=4)
  assert len(seen) == calls
  whole = aggregate(lambda: iter([measured]), read=READ, k=4)
  for ours, theirs in zip(statistics.finalize(), whole.finalize(), strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


def test_merging_halves_is_the_same_as_seeing_all(measured):
  left, right = take(measured, range(5)), take(measured, range(5, N))
  exemplars = Exemplars().update(left).merge(Exemplars().update(right))
  assert exemplars.shape[1] == int(np.argmax(measured.silhouette_iou))
  assert exemplars.parts[1] == int(np.argmin(measured.texture_distance))
  ranking = (
    Ranking()
    .update(left, exemplars, read=READ)
    .merge(Ranking().update(right, exemplars, read=READ))
  )
  q, u, *_ = naive(measured, 4)
  assert ranking.finalize(4) == (frozenset(q), frozenset(u))
  chosen = ranking.finalize(4)
  merged = (
    SufficientStatistics().update(left, chosen).merge(SufficientStatistics().update(right, chosen))
  )
  assert (merged.num_offsets, merged.num_uv_parts) == (4, 4)


def test_empty_is_neutral(measured):
  exemplars = Exemplars().update(measured)
  assert Exemplars().merge(exemplars).shape[1] == exemplars.shape[1]
  assert SufficientStatistics().merge(SufficientStatistics()).num_offsets == 0
  with pytest.raises(ValueError, match="set Q is empty"):
    SufficientStatistics().finalize()


def test_without_parts_only_shapes_are_aggregated(measured):
  statistics = aggregate(lambda: iter([measured.replace(uv_parts=None)]), read=READ, k=3)
  offset, parts = statistics.finalize()
  assert parts is None
  np.testing.assert_allclose(offset, naive(measured, 3)[2], rtol=1e-5, atol=1e-6)


def test_equal_scores_are_settled_by_the_index(measured):
  tied = measured.replace(
    silhouette_iou=np.full(N, 0.5, np.float32),
    silhouette=np.ones((N, S, S), np.float32),
  )
  exemplars = Exemplars().update(tied)
  assert exemplars.shape[1] == 0
  assert Ranking().update(tied, exemplars, read=READ).finalize(3)[0] == frozenset({0, 1, 2})


def test_an_image_without_its_part_map_counts_for_shape_alone(measured):
  clearest = int(np.argmin(measured.texture_distance))
  lacking = measured.uv_parts.copy()
  lacking[clearest] = 0.0
  statistics = aggregate(lambda: iter([measured.replace(uv_parts=lacking)]), read=READ, k=N)
  assert (statistics.num_offsets, statistics.num_uv_parts) == (N, N - 1)
  others = np.delete(measured.uv_parts, clearest, axis=0)
  np.testing.assert_allclose(statistics.finalize()[1], others.mean(0), rtol=1e-5, atol=1e-6)


def test_batches_with_and_without_part_maps_may_mix(measured):
  first, second = take(measured, range(6)), take(measured, range(6, N)).replace(uv_parts=None)
  for batches in ([first, second], [second, first]):
    statistics = aggregate(lambda batches=batches: iter(batches), read=READ, k=N)
    assert (statistics.num_offsets, statistics.num_uv_parts) == (N, 6)
    got = statistics.finalize()[1]
    np.testing.assert_allclose(got, first.uv_parts.mean(0), rtol=1e-5, atol=1e-6)


def test_an_image_counts_where_it_shows_the_surface(measured):
  """Hidden points are zero, mirror images share a point, what nobody sees is background."""
  shown = measured.uv_parts.copy()
  shown[:, 0] = 0.0  # never seen
  shown[1:, 1] = 0.0  # seen once
  shown[0, 2] *= 2.0  # seen on both sides in one image
  _, got = aggregate(lambda: iter([measured.replace(uv_parts=shown)]), read=READ, k=N).finalize()
  np.testing.assert_array_equal(got[0], np.tile([1.0, 0.0, 0.0], (UV[1], 1)))
  np.testing.assert_allclose(got[1], measured.uv_parts[0, 1], rtol=1e-5)
  twice = (2 * measured.uv_parts[0, 2] + measured.uv_parts[1:, 2].sum(0)) / (N + 1)
  np.testing.assert_allclose(got[2], twice, rtol=1e-5)


def test_parts_are_compared_where_the_mesh_reads_them(measured, rng):
  """Half of a UV map reaches no mesh: noise there must not choose the images of U."""
  topology = build_topology(1, texels_per_side=2, symmetric_texture=True)
  read = read_uv_pixels(topology, uv_height=16)
  assert 0.3 < read.mean() < 0.7
  alike, noise = np.array([1, 4, 5, 8]), rng.dirichlet(np.ones(P1), (N, *read.shape))
  # The others differ where it counts, and are the exemplar's own where it does not.
  maps = np.broadcast_to(noise[4], noise.shape).astype(np.float32)
  maps = np.where(read[..., None], np.array([0.0, 0.8, 0.2], np.float32), maps)
  maps[alike] = np.where(read[..., None], np.eye(P1)[1], noise[alike])
  statistics = measured.replace(
    uv_parts=maps, texture_distance=np.where(np.arange(N) == 4, 0.0, 1.0).astype(np.float32)
  )
  exemplars = Exemplars().update(statistics)
  ranking = Ranking().update(statistics, exemplars, read=read)
  assert ranking.finalize(len(alike))[1] == frozenset(alike.tolist())
