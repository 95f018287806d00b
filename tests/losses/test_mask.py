"""The silhouette terms: golden and closed-form values, empty and certain masks, refusals."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from umr_jax.losses.mask import outline_loss, outline_points, segmentation_loss, soft_iou


@pytest.fixture
def case(rng):
  alpha, mask = rng.uniform(size=(2, 3, 10, 12)).astype(np.float32)
  return {"alpha": jnp.asarray(alpha), "mask": jnp.asarray(mask)}


def test_matches_the_golden_values(golden_geometry):
  alpha, mask = (jnp.asarray(golden_geometry[f"iou/{name}"]) for name in ("pred", "target"))
  loss = 1.0 - soft_iou(alpha=alpha, mask=mask)
  np.testing.assert_allclose(loss, golden_geometry["iou/neg_iou_each"], rtol=1e-5)
  np.testing.assert_allclose(loss.mean(), golden_geometry["iou/neg_iou_mean"], rtol=1e-5)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_half_overlapping_squares_have_the_closed_form(transform):
  alpha, mask = np.zeros((2, 8, 8), np.float32)
  alpha[:, :4], mask[:, 2:6] = 1.0, 1.0
  iou = transform(soft_iou)(alpha=jnp.asarray(alpha), mask=jnp.asarray(mask))
  np.testing.assert_allclose(iou, 2 / 6, rtol=1e-5)


def test_matches_the_loop_it_vectorises(case):
  for b in range(3):
    pairs = zip(np.ravel(case["alpha"][b]), np.ravel(case["mask"][b]), strict=True)
    both, either = 0.0, 0.0
    for a, m in pairs:
      both += float(a) * float(m)
      either += float(a) + float(m) - float(a) * float(m)
    np.testing.assert_allclose(soft_iou(**case)[b], both / either, rtol=1e-5)


def test_hypotheses_share_a_mask(case):
  alpha = jnp.stack([case["alpha"], 0.5 * case["alpha"]], axis=1)
  many = soft_iou(alpha=alpha, mask=case["mask"][:, None])
  for k in range(2):
    alone = soft_iou(alpha=alpha[:, k], mask=case["mask"])
    np.testing.assert_allclose(many[:, k], alone, rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("mask", [0.0, 1.0])
def test_empty_and_full_silhouettes_are_finite(alpha, mask):
  covered, target = jnp.full((4, 4), alpha), jnp.full((4, 4), mask)
  value, grad = jax.value_and_grad(lambda a: soft_iou(alpha=a, mask=target))(covered)
  np.testing.assert_allclose(value, 1.0 if alpha and mask else 0.0, atol=1e-5)
  assert np.isfinite(grad).all()


def test_gradient_grows_with_alpha_inside_the_mask_and_falls_outside():
  alpha, mask = jnp.full((8, 8), 0.5), jnp.zeros((8, 8)).at[:, :4].set(1.0)
  grad = jax.grad(lambda a: soft_iou(alpha=a, mask=mask))(alpha)
  assert (grad[:, :4] > 0.0).all()
  assert (grad[:, 4:] < 0.0).all()


def test_another_mask_size_is_refused(case):
  with pytest.raises(jaxtyping.TypeCheckError, match="mask"):
    soft_iou(alpha=case["alpha"], mask=case["mask"][:, :, :1])


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_segmentation_undecided_pixels_cost_log_2_whatever_the_mask(transform, rng):
  mask = jnp.asarray(rng.random((3, 8, 8)), jnp.float32)
  loss = transform(segmentation_loss)(logits=jnp.zeros((3, 4, 4)), mask=mask)
  np.testing.assert_allclose(loss, np.log(2.0), rtol=1e-6)


def test_segmentation_matches_the_loop_it_vectorises(rng):
  logits = rng.normal(size=(2, 4, 6))
  mask = rng.random((2, 8, 12))
  expected = np.zeros(2)
  for b, i, j in np.ndindex(2, 4, 6):
    # Shrinking by two with a triangular filter: two pixels before to two after, by distance.
    weights = {-1: 0.125, 0: 0.375, 1: 0.375, 2: 0.125}
    total = target = 0.0
    for y, wy in weights.items():
      for x, wx in weights.items():
        row, column = 2 * i + y, 2 * j + x
        if 0 <= row < 8 and 0 <= column < 12:
          target += wy * wx * mask[b, row, column]
          total += wy * wx
    p = 1.0 / (1.0 + np.exp(-logits[b, i, j]))
    q = target / total
    expected[b] -= (q * np.log(p) + (1.0 - q) * np.log(1.0 - p)) / 24
  found = segmentation_loss(
    logits=jnp.asarray(logits, jnp.float32), mask=jnp.asarray(mask, jnp.float32)
  )
  np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_segmentation_certain_pixels_are_finite_and_free_where_they_are_right(size):
  mask = jnp.zeros((1, 4, 4)).at[:, :2].set(1.0)
  sure = jnp.where(mask > 0.5, size, -size)
  value, gradient = jax.value_and_grad(lambda x: segmentation_loss(logits=x, mask=mask).sum())(sure)
  np.testing.assert_allclose(value, 0.0, atol=1e-6)
  assert np.isfinite(gradient).all()
  assert np.isfinite(segmentation_loss(logits=-sure, mask=mask)).all()


def test_segmentation_gradient_raises_the_objects_pixels_and_lowers_the_others():
  mask = jnp.zeros((1, 4, 4)).at[:, :2].set(1.0)
  gradient = jax.grad(lambda x: segmentation_loss(logits=x, mask=mask).sum())(jnp.zeros((1, 4, 4)))
  np.testing.assert_allclose(gradient[:, :2], -0.5 / 16)
  np.testing.assert_allclose(gradient[:, 2:], 0.5 / 16)


def test_segmentation_another_number_of_images_is_refused():
  with pytest.raises(jaxtyping.TypeCheckError, match="mask"):
    segmentation_loss(logits=jnp.zeros((2, 4, 4)), mask=jnp.zeros((1, 8, 8)))


def square(size, low, high):
  mask = np.zeros((1, size, size), np.float32)
  mask[:, low:high, low:high] = 1.0
  return jnp.asarray(mask)


def test_an_outline_is_the_pixels_beside_the_background():
  points, weights = outline_points(square(16, 4, 10), count=40)
  kept = np.asarray(points[0])[np.asarray(weights[0]) > 0]
  assert len(kept) == 6**2 - 4**2
  at = (2.0 * np.arange(16) + 1.0) / 16 - 1.0
  ends = np.abs(kept - at[[4, 9]].mean()).max(axis=1)
  np.testing.assert_allclose(ends, (at[9] - at[4]) / 2, atol=1e-6)


def test_there_is_no_outline_where_the_frame_cuts_the_object_off():
  points, weights = outline_points(square(16, 8, 16), count=40)
  kept = np.asarray(points[0])[np.asarray(weights[0]) > 0]
  assert len(kept) == 8 + 7  # the upper and the left side
  for empty in (0.0, 1.0):
    assert not outline_points(jnp.full((1, 8, 8), empty), count=9)[1].any()


def test_the_outline_loss_is_the_mean_square_of_the_distance_to_the_nearest_vertex(rng):
  points = rng.uniform(-1, 1, (2, 7, 2)).astype(np.float32)
  projected = rng.uniform(-1, 1, (2, 5, 2)).astype(np.float32)
  weights = np.array([[1, 1, 1, 1, 0, 0, 0], [0] * 7], np.float32)
  found = outline_loss(*map(jnp.asarray, (projected, points, weights)))
  squares = ((points[0, :4, None] - projected[0, None]) ** 2).sum(axis=-1)
  np.testing.assert_allclose(found, [squares.min(axis=1).mean(), 0.0], rtol=1e-4)


def test_the_outline_pulls_the_nearest_vertex_towards_it():
  points, weights = jnp.asarray([[[0.5, 0.0]]]), jnp.ones((1, 1))
  projected = jnp.asarray([[[0.2, 0.0], [-0.9, 0.0], [0.2, 0.8]]])
  slope = jax.grad(lambda p: outline_loss(p, points, weights)[0])(projected)
  np.testing.assert_allclose(slope[0], [[-0.6, 0.0], [0.0, 0.0], [0.0, 0.0]], atol=1e-6)
