"""segmentation_loss: closed form, the loop it vectorises, saturation, its gradient's sign."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from umr_jax.losses.segmentation import segmentation_loss


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_undecided_pixels_cost_log_2_whatever_the_mask(transform, rng):
  mask = jnp.asarray(rng.random((3, 8, 8)), jnp.float32)
  loss = transform(segmentation_loss)(logits=jnp.zeros((3, 4, 4)), mask=mask)
  np.testing.assert_allclose(loss, np.log(2.0), rtol=1e-6)


def test_matches_the_loop_it_vectorises(rng):
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
def test_certain_pixels_are_finite_and_free_where_they_are_right(size):
  mask = jnp.zeros((1, 4, 4)).at[:, :2].set(1.0)
  sure = jnp.where(mask > 0.5, size, -size)
  value, gradient = jax.value_and_grad(lambda x: segmentation_loss(logits=x, mask=mask).sum())(sure)
  np.testing.assert_allclose(value, 0.0, atol=1e-6)
  assert np.isfinite(gradient).all()
  assert np.isfinite(segmentation_loss(logits=-sure, mask=mask)).all()


def test_gradient_raises_the_objects_pixels_and_lowers_the_others():
  mask = jnp.zeros((1, 4, 4)).at[:, :2].set(1.0)
  gradient = jax.grad(lambda x: segmentation_loss(logits=x, mask=mask).sum())(jnp.zeros((1, 4, 4)))
  np.testing.assert_allclose(gradient[:, :2], -0.5 / 16)
  np.testing.assert_allclose(gradient[:, 2:], 0.5 / 16)


def test_another_number_of_images_is_refused():
  with pytest.raises(jaxtyping.TypeCheckError, match="mask"):
    segmentation_loss(logits=jnp.zeros((2, 4, 4)), mask=jnp.zeros((1, 8, 8)))
