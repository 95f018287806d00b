"""mask_iou_loss and soft_iou: golden and closed-form values, empty silhouettes, refusals."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from umr_jax.losses.mask import mask_iou_loss, soft_iou


@pytest.fixture
def case(rng):
  alpha, mask = rng.uniform(size=(2, 3, 10, 12)).astype(np.float32)
  return {"alpha": jnp.asarray(alpha), "mask": jnp.asarray(mask)}


def test_matches_the_golden_values(golden_geometry):
  loss = mask_iou_loss(
    alpha=jnp.asarray(golden_geometry["iou/pred"]), mask=jnp.asarray(golden_geometry["iou/target"])
  )
  np.testing.assert_allclose(loss, golden_geometry["iou/neg_iou_each"], rtol=1e-5)
  np.testing.assert_allclose(loss.mean(), golden_geometry["iou/neg_iou_mean"], rtol=1e-5)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_half_overlapping_squares_have_the_closed_form(transform):
  alpha, mask = np.zeros((2, 8, 8), np.float32)
  alpha[:, :4], mask[:, 2:6] = 1.0, 1.0
  loss = transform(mask_iou_loss)(alpha=jnp.asarray(alpha), mask=jnp.asarray(mask))
  np.testing.assert_allclose(loss, 1 - 2 / 6, rtol=1e-5)


def test_matches_the_loop_it_vectorises(case):
  for b in range(3):
    pairs = zip(np.ravel(case["alpha"][b]), np.ravel(case["mask"][b]), strict=True)
    both, either = 0.0, 0.0
    for a, m in pairs:
      both += float(a) * float(m)
      either += float(a) + float(m) - float(a) * float(m)
    np.testing.assert_allclose(soft_iou(**case)[b], both / either, rtol=1e-5)


def test_hypotheses_share_a_mask_by_vmap(case):
  many = jax.vmap(lambda a: mask_iou_loss(alpha=a, mask=case["mask"]))(case["alpha"][None])
  np.testing.assert_allclose(many[0], mask_iou_loss(**case), rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("mask", [0.0, 1.0])
def test_empty_and_full_silhouettes_are_finite(alpha, mask):
  covered, target = jnp.full((4, 4), alpha), jnp.full((4, 4), mask)
  value, grad = jax.value_and_grad(lambda a: mask_iou_loss(alpha=a, mask=target))(covered)
  np.testing.assert_allclose(value, 0.0 if alpha and mask else 1.0, atol=1e-5)
  assert np.isfinite(grad).all()


def test_gradient_grows_alpha_inside_the_mask_and_shrinks_it_outside():
  alpha, mask = jnp.full((8, 8), 0.5), jnp.zeros((8, 8)).at[:, :4].set(1.0)
  grad = jax.grad(lambda a: mask_iou_loss(alpha=a, mask=mask))(alpha)
  assert (grad[:, :4] < 0.0).all()
  assert (grad[:, 4:] > 0.0).all()


def test_another_mask_size_is_refused(case):
  with pytest.raises(jaxtyping.TypeCheckError, match="mask"):
    mask_iou_loss(alpha=case["alpha"], mask=case["mask"][:, :, :1])
