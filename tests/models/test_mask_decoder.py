"""The decoder of a frozen backbone's maps: sizes, what it can learn, and who reads which map."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from umr_jax.losses.mask import segmentation_loss
from umr_jax.models.initialize import draw_variables
from umr_jax.models.mask_decoder import MaskDecoder

SIZES = ((16, 6), (8, 10), (4, 12))


@pytest.fixture
def maps(rng):
  return tuple(jnp.asarray(rng.normal(size=(2, n, n, c)), jnp.float32) for n, c in SIZES)


def draw(maps):
  return draw_variables(MaskDecoder(), maps, seed=0, train=True)


def test_it_says_as_many_pixels_as_the_finest_map_has(maps):
  logits = MaskDecoder().apply(draw(maps), maps, train=False)
  assert logits.shape == (2, 16, 16)
  alone = MaskDecoder().apply(draw(maps), tuple(x[:1] for x in maps), train=False)
  np.testing.assert_allclose(alone, logits[:1], atol=1e-5)


@pytest.mark.parametrize("level", range(3))
def test_every_map_is_read(maps, level):
  variables = draw(maps)
  changed = [
    x + 1.0 * (i == level) * jnp.sin(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)
    for i, x in enumerate(maps)
  ]
  before = MaskDecoder().apply(variables, maps, train=False)
  after = MaskDecoder().apply(variables, tuple(changed), train=False)
  assert np.abs(after - before).max() > 1e-3


def test_it_learns_an_outline_that_only_the_fine_map_shows(maps):
  mask = jnp.zeros((2, 16, 16)).at[0, 3:9, 2:13].set(1.0).at[1, 7:12, 5:8].set(1.0)
  fine = maps[0].at[..., 0].set(50.0 * mask)  # on a scale of its own
  shown = (fine, *maps[1:])
  variables = draw(shown)
  optimizer = optax.adam(1e-2)

  @jax.jit
  def step(params, stats, state):
    def loss(params):
      logits, updates = MaskDecoder().apply(
        {"params": params, "batch_stats": stats}, shown, train=True, mutable=["batch_stats"]
      )
      return segmentation_loss(logits=logits, mask=mask).mean(), updates["batch_stats"]

    (value, stats), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    with jax.numpy_dtype_promotion("standard"):
      updates, state = optimizer.update(gradient, state)
      return optax.apply_updates(params, updates), stats, state, value

  params, stats = variables["params"], variables["batch_stats"]
  state = optimizer.init(params)
  for _ in range(60):
    params, stats, state, value = step(params, stats, state)
  assert float(value) < 0.05  # log 2 where nothing is known
