"""texture_dt_loss: golden value, its loop, and positions at and beyond the image's edge."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from umr_jax.losses.texture_dt import texture_dt_loss


def bowl(size):
  """A barrier field around a disc, [1, size, size]."""
  centres = (2 * np.arange(size) + 1 - size) / size
  radius = np.hypot(centres[None], centres[:, None])
  return jnp.asarray(1 / (1 + np.exp(-10 * (radius - 0.5))), jnp.float32)[None]


def test_matches_the_golden_value(golden_geometry):
  flow = golden_geometry["texture/flow"]
  loss = texture_dt_loss(
    flow=jnp.asarray(flow.reshape(*flow.shape[:2], -1, 2)),
    barrier=jnp.asarray(golden_geometry["texture/dt"][:, 0]),
  )
  np.testing.assert_allclose(loss.mean(), golden_geometry["texture/dt_loss"], rtol=1e-5)


def test_reads_the_pixel_whose_centre_it_hits(rng):
  barrier = rng.uniform(size=(2, 5, 4)).astype(np.float32)
  rows, columns = rng.integers(5, size=(2, 6, 3)), rng.integers(4, size=(2, 6, 3))
  flow = np.stack([(2 * columns + 1 - 4) / 4, (2 * rows + 1 - 5) / 5], axis=-1)
  expected = [np.mean([barrier[b, rows[b], columns[b]]]) for b in range(2)]
  loss = texture_dt_loss(flow=jnp.asarray(flow, jnp.float32), barrier=jnp.asarray(barrier))
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_descent_moves_samples_onto_the_object():
  flow = jnp.asarray([[[[0.6, 0.0]], [[0.0, -0.7]]]])
  grad = jax.grad(lambda x: texture_dt_loss(flow=x, barrier=bowl(16)).sum())(flow)
  assert grad[0, 0, 0, 0] > 0.0
  assert grad[0, 1, 0, 1] < 0.0


def test_leaving_the_image_does_not_pay():
  barrier = jnp.full((1, 8, 8), 0.25)
  far = jnp.asarray([[[[3.0, 0.0], [0.0, -50.0]]]])
  np.testing.assert_allclose(texture_dt_loss(flow=far, barrier=barrier), [1.0])
  # The last half pixel climbs towards the background outside.
  grad = jax.grad(lambda x: texture_dt_loss(flow=x, barrier=barrier).sum())(
    jnp.asarray([[[[0.95, 0.0]]]])
  )
  assert grad[0, 0, 0, 0] > 0.0


@pytest.mark.parametrize("position", [0.0, 1.0, -1.0, 1e6, 0.125])
def test_gradient_is_finite_at_edges_and_on_centres(position):
  flow = jnp.full((1, 2, 3, 2), position)
  grad = jax.grad(lambda x: texture_dt_loss(flow=x, barrier=bowl(16)).sum())(flow)
  assert np.isfinite(grad).all()


def test_another_batch_is_refused():
  with pytest.raises(jaxtyping.TypeCheckError, match="barrier"):
    texture_dt_loss(flow=jnp.zeros((2, 4, 1, 2)), barrier=bowl(8))
