"""The semantic terms: what counts as a part, where its vertices belong, how maps are compared."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.losses.semantic import (
  POINTS,
  _centres,
  part_probability_loss,
  part_targets,
  part_vertices_loss,
)

S = 24


@pytest.fixture
def maps():
  """Two images [2, S, S, 4]: a left and an upper-right rectangle; the third part is never shown."""
  parts = np.zeros((2, S, S, 4), np.float32)
  parts[0, 4:20, 2:10, 1] = 1.0
  parts[:, 2:8, 14:22, 2] = 1.0
  parts[..., 0] = 1.0 - parts.sum(-1)
  return jnp.asarray(parts)


def test_points_lie_on_their_part_and_belong_to_the_image(maps):
  mask, index = 1.0 - maps[..., 0], jnp.array([3, 7])
  targets = part_targets(maps, mask, index, jax.random.key(0))
  np.testing.assert_array_equal(targets.present, [[1, 1, 0], [0, 1, 0]])
  assert targets.points.shape == (2, 3, POINTS, 2)
  column, row = np.floor((np.asarray(targets.points) + 1.0) * S / 2).astype(int).T
  left = (column[:, 0, 0] >= 2) & (column[:, 0, 0] < 10) & (row[:, 0, 0] >= 4) & (row[:, 0, 0] < 20)
  right = (column[:, 1] >= 14) & (column[:, 1] < 22) & (row[:, 1] >= 2) & (row[:, 1] < 8)
  assert left.all() and right.all()
  again = part_targets(maps[1:], mask[1:], index[1:], jax.random.key(0))
  np.testing.assert_array_equal(again.points[0, 1], targets.points[1, 1])
  other = part_targets(maps, mask, index, jax.random.key(1))
  assert (other.points[:, 1] != targets.points[:, 1]).any()


def test_points_spread_over_the_part(maps):
  many = jnp.tile(maps[:1], (50, 1, 1, 1))
  targets = part_targets(many, 1.0 - many[..., 0], jnp.arange(50), jax.random.key(0))
  points = np.asarray(targets.points[:, 0]).reshape(-1, 2)
  centre = np.array([2 * 6 / S - 1, 2 * 12 / S - 1])
  np.testing.assert_allclose(points.mean(0), centre, atol=0.03)
  # Uniform over 8 x 16 pixels has these deviations; the outermost third is left out.
  full = np.array([8, 16]) * 2 / S / np.sqrt(12)
  assert (points.std(0) < full).all() and (points.std(0) > 0.6 * full).all()


def test_stray_pixels_are_left_out(maps):
  stray = maps.at[0, 22, 22].set(jnp.array([0.0, 1.0, 0.0, 0.0]))
  many = jnp.tile(stray[:1], (50, 1, 1, 1))
  targets = part_targets(many, 1.0 - many[..., 0], jnp.arange(50), jax.random.key(0))
  assert (targets.points[:, 0, :, 0] < 0.0).all()


def _vertex_case(rng):
  return {
    "projected": jnp.asarray(rng.uniform(-1, 1, (2, 3, 10, 2)), jnp.float32),
    "labels": jnp.array([0, 1, 1, 2, 2, 2, 0, 1, 2, 2]),
    "points": jnp.asarray(rng.uniform(-1, 1, (2, 3, 5, 2)), jnp.float32),
    "present": jnp.array([[1.0, 1.0, 1.0], [0.0, 1.0, 0.0]]),
  }


def test_vertices_match_the_loop_they_vectorise(rng):
  case = _vertex_case(rng)
  projected, labels, points, present = (np.asarray(case[name]) for name in case)
  expected = np.zeros((2, 3))
  for b, k in np.ndindex(2, 3):
    values = []
    for part in (1, 2, 3):
      members = projected[b, k][labels == part]
      if present[b, part - 1] and len(members):
        d2 = np.square(members[:, None] - points[b, part - 1][None]).sum(-1)
        values.append(d2.min(1).mean())
    expected[b, k] = np.mean(values)
  loss = part_vertices_loss(**case)
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_vertices_without_a_part_to_meet_cost_nothing(rng):
  case = _vertex_case(rng) | {"present": jnp.zeros((2, 3))}

  def loss(projected):
    return part_vertices_loss(**(case | {"projected": projected})).sum()

  value, grad = jax.value_and_grad(loss)(case["projected"])
  assert value == 0.0 and (grad == 0.0).all()


def test_vertices_are_pulled_to_their_points(rng):
  case = _vertex_case(rng)

  def loss(projected):
    return part_vertices_loss(**(case | {"projected": projected})).sum()

  grad = jax.grad(loss)(case["projected"])
  assert np.isfinite(grad).all() and (grad[:, :, jnp.array([0, 6])] == 0.0).all()
  assert loss(case["projected"] - 0.1 * grad) < loss(case["projected"])


def test_of_two_points_that_are_equally_near_one_pulls():
  """Rather than none, as where the gradient of a minimum finds nothing that equals it: NaN."""
  points = jnp.array([[[[0.5, 0.0], [-0.5, 0.0]]]])

  def loss(projected):
    return part_vertices_loss(
      projected=projected, labels=jnp.array([1]), points=points, present=jnp.ones((1, 1))
    ).sum()

  np.testing.assert_allclose(jax.grad(loss)(jnp.zeros((1, 1, 1, 2)))[0, 0, 0], [-1.0, 0.0])


def test_equal_maps_cost_nothing_and_a_shift_its_centres(maps):
  target, present = maps[..., 1:], jnp.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
  equal = part_probability_loss(rendered=target, target=target, present=present)
  np.testing.assert_allclose(equal, 0.0, atol=1e-7)
  moved = jnp.roll(target, 2, axis=1)  # two pixels down: 2 * 2 / S in image space
  shift = part_probability_loss(rendered=moved, target=target, present=present)
  pixels = np.square(np.asarray(moved - target)).sum(-1).mean((1, 2))
  np.testing.assert_allclose(shift, 0.25 * (pixels + 0.5 * (4 / S) ** 2), rtol=1e-5)


def test_maps_pull_a_part_towards_its_place(maps):
  target, present = maps[..., 1:], jnp.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
  grad = jax.grad(
    lambda rendered: part_probability_loss(rendered=rendered, target=target, present=present).sum()
  )(jnp.roll(target, 4, axis=1))
  assert np.isfinite(grad).all()
  # Less where the part does not belong, more where it does.
  assert grad[0, 21, 5, 0] > 0.0 > grad[0, 5, 5, 0]


def test_an_image_without_a_part_map_costs_nothing(maps):
  def loss(rendered):
    zeros = jnp.zeros_like(rendered)
    return part_probability_loss(rendered=rendered, target=zeros, present=jnp.zeros((2, 3))).sum()

  value, grad = jax.value_and_grad(loss)(maps[..., 1:])
  assert value == 0.0 and (grad == 0.0).all()
  value, grad = jax.value_and_grad(loss)(jnp.zeros_like(maps[..., 1:]))
  assert value == 0.0 and np.isfinite(grad).all()


def test_chamfer_distances_are_the_golden_ones(golden_geometry):
  """One part of 17 vertices and 23 points, in the original's coordinates."""
  vertices, points = golden_geometry["chamfer/a"], golden_geometry["chamfer/b"]
  loss = part_vertices_loss(
    projected=jnp.asarray(vertices)[:, None],
    labels=jnp.ones(vertices.shape[1], jnp.int32),
    points=jnp.asarray(points)[:, None],
    present=jnp.ones((len(vertices), 1)),
  )
  expected = golden_geometry["chamfer/a_to_b"].mean(-1)
  np.testing.assert_allclose(loss[:, 0], expected, rtol=1e-5)


def test_centres_are_the_golden_ones(golden_geometry):
  """The original adds 1e-3 to its maps, and counts coordinates from a pixel's corner."""
  maps = np.moveaxis(golden_geometry["centers/maps"], 1, -1) + 1e-3
  there = np.asarray(_centres(jnp.asarray(maps, jnp.float32)))
  np.testing.assert_allclose(there - 1.0 / maps.shape[1], golden_geometry["centers/xy"], atol=2e-5)
