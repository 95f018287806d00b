"""texture_cycle_loss: golden values, closed form, what it must ignore, what it must refuse."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from umr_jax.losses.texture_cycle import texture_cycle_loss

B, F, T = 2, 6, 9


@pytest.fixture
def case():
  flow_key, landing_key = jax.random.split(jax.random.key(0))
  return {
    "flow": jax.random.uniform(flow_key, (B, F, T, 2), minval=-1.0),
    "landing": jax.random.uniform(landing_key, (B, F, 2), minval=-1.0),
    # 4 of 6, then all.
    "visible": jnp.arange(F)[None] < jnp.array([[4], [F]]),
  }


def test_matches_the_golden_value(golden_geometry):
  flow, landing = golden_geometry["cycle/flow"], golden_geometry["cycle/face_coords"]
  seen = np.zeros(landing.shape[:2], bool)
  for row, ids in zip(seen, golden_geometry["cycle/visible_face_ids_nobg"], strict=True):
    row[ids.astype(int)] = True
  loss = texture_cycle_loss(
    flow=jnp.asarray(flow.reshape(*flow.shape[:2], -1, 2)),
    landing=jnp.asarray(landing),
    visible=jnp.asarray(seen),
  )
  np.testing.assert_allclose(loss.mean(), golden_geometry["cycle/loss_nobg"], rtol=1e-5)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_constant_offset_has_the_closed_form(case, transform):
  # Every face misses by (0.3, 0.4): the mean over x, y is 0.125, times seen / F.
  offset = jnp.tile(jnp.array([0.3, 0.4]), (T, 1))
  case["flow"] = case["landing"][:, :, None] + offset[None, None]
  np.testing.assert_allclose(
    transform(texture_cycle_loss)(**case), [0.125 * 4 / 6, 0.125], rtol=1e-5
  )


def test_matches_the_loop_it_vectorises(case):
  expected = np.zeros(B)
  for b, f in zip(*np.nonzero(case["visible"]), strict=True):
    mean_flow = np.asarray(case["flow"])[b, f].mean(axis=0)
    expected[b] += np.square(mean_flow - np.asarray(case["landing"])[b, f]).sum() / (2 * F)
  np.testing.assert_allclose(texture_cycle_loss(**case), expected, rtol=1e-5)


def test_unseen_faces_may_be_nan_and_get_no_gradient(case):
  case["landing"] = jnp.where(case["visible"][..., None], case["landing"], jnp.nan)
  grad = jax.grad(lambda x: texture_cycle_loss(**{**case, "flow": x}).sum())(case["flow"])
  assert np.isfinite(grad).all()
  assert (grad[~case["visible"]] == 0.0).all()
  assert (grad[case["visible"]] != 0.0).all()


def test_an_image_without_visible_faces_costs_nothing(case):
  case["visible"] = jnp.zeros((B, F), bool)
  assert (texture_cycle_loss(**case) == 0.0).all()


def test_landing_is_a_target(case):
  grad = jax.grad(lambda x: texture_cycle_loss(**{**case, "landing": x}).sum())(case["landing"])
  assert (grad == 0.0).all()


def test_face_count_mismatch_is_refused(case):
  case["landing"], case["visible"] = case["landing"][:, :1], case["visible"][:, :1]
  with pytest.raises(jaxtyping.TypeCheckError, match="landing"):
    texture_cycle_loss(**case)
