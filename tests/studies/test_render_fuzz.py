"""The fuzz of the rasterizer: it finds what is broken, and finds nothing in ours."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.studies import render_fuzz


def test_random_sets_hold_every_kind_of_hostility(rng):
  sets = render_fuzz.random_sets(rng, 400)
  assert sets.dtype == np.float32
  flat = sets.reshape(-1, 3, 3)
  there = render_fuzz.rendered(sets)
  assert 0.75 < there.mean() < 0.95
  for wrong in (np.isnan(flat), np.isposinf(flat), flat[..., 2] <= 0.0, np.abs(flat) > 1e30):
    assert wrong.any()
  xy = flat[there.reshape(-1)][..., :2].astype(np.float64)
  extent = np.ptp(xy, axis=1).max(axis=-1)
  assert (extent == 0.0).any() and (extent < 1e-4).any() and (extent > 1e4).any()
  edges = xy - np.roll(xy, 1, axis=1)
  area = np.abs(edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0])
  assert ((area < 1e-6 * extent**2) & (extent > 0.1)).any()
  assert (sets == np.roll(sets, 1, axis=1)).all(axis=(-2, -1)).any()


def test_two_thousand_sets_break_no_promise():
  drawn, failures = 0, []
  for total, broken in render_fuzz.check(2000, seed=0):
    drawn, failures = total, failures + broken
  assert drawn >= 2000
  assert failures == []


PROMISES = {
  "nan image": ("image is finite", lambda f, t: (jnp.full((4, 2), jnp.nan), f * 0, t)),
  "gradient on the unrendered": (
    "no gradient on what is not rendered",
    lambda f, t: (t, f * 0 + 1, t),
  ),
  "unrendered faces matter": (
    "what is not rendered changes nothing",
    lambda f, t: (f[:, :, 0, 2], f * 0, t),
  ),
}


@pytest.mark.parametrize("kind", PROMISES)
def test_a_broken_promise_is_found_with_its_set(kind):
  promise, rasterizer = PROMISES[kind]
  faces = np.ones((4, 2, 3, 3), np.float32)
  faces[2, 1, 0, 2] = -3.0  # one face that may not be rendered
  broken = dict(render_fuzz._broken(functools.partial(rasterizer, t=np.ones(4, np.float32)), faces))
  assert promise in broken
  assert 2 in broken[promise]


def test_results_that_change_from_call_to_call_are_found():
  calls = iter(range(10))

  def rasterizer(faces):
    return np.full((4, 3), next(calls), np.float32), faces * 0, faces[:, 0]

  assert "equal inputs give equal bits" in dict(
    render_fuzz._broken(rasterizer, np.ones((4, 2, 3, 3), np.float32))
  )
