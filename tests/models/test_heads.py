"""Shape, texture and mask heads: where they start, what they refuse, finite gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.models import numpy_net
from tests.models.run_head import D, run
from umr_jax.losses.mask import segmentation_loss
from umr_jax.models.heads import (
  BLOCK,
  MaskDecoder,
  MaskHead,
  ShapeHead,
  TextureHead,
  UpConv,
  count_doublings,
  depth_to_space,
)
from umr_jax.models.initialize import draw_variables


def test_shapes_start_at_the_template(feature):
  offsets, variables = run(ShapeHead(7), feature)
  assert offsets.shape == (6, 7, 3)
  assert np.abs(offsets).max() < 5e-3
  layer = variables["params"]["offsets"]
  assert layer["kernel"].shape == (D, 21)
  np.testing.assert_array_equal(layer["bias"], np.zeros(21))


def test_the_offsets_bias_moves_every_instance_alike(feature):
  head = ShapeHead(7)
  offsets, variables = run(head, feature)
  layer = variables["params"]["offsets"]
  shift = jnp.arange(21, dtype=jnp.float32)
  moved = head.apply({"params": {"offsets": {**layer, "bias": layer["bias"] + shift}}}, feature)
  expected = np.broadcast_to(np.asarray(shift).reshape(7, 3), moved.shape)
  np.testing.assert_allclose(moved - offsets, expected, atol=1e-5)


@pytest.mark.parametrize("height", [8, 16])
@pytest.mark.parametrize("stem", ["conv", "dense"])
def test_the_flow_starts_near_the_centre_at_every_uv_height(feature, height, stem):
  head = TextureHead(height, stem)
  flow, _ = run(head, feature, train=True)
  assert flow.shape == (6, height, 2 * height, 2)
  assert 0.0 < np.abs(flow).max() < 0.7
  assert np.abs(flow.mean()) < 0.1


def test_the_dense_stem_is_the_paper_s(feature):
  shapes = jax.eval_shape(
    lambda x: TextureHead(128, "dense").init(jax.random.key(0), x, train=True), feature
  )
  assert shapes["params"]["fc2"]["kernel"].shape == (8192, 8192)
  assert shapes["params"]["up5_conv2"]["kernel"].shape == (3, 3, 8, 8)


@pytest.mark.parametrize("height", [0, 4, 12, 100])
def test_a_uv_height_that_doubling_does_not_reach_is_refused(height):
  with pytest.raises(ValueError, match="power of two"):
    count_doublings(height)


def test_an_unknown_stem_is_refused(feature):
  with pytest.raises(ValueError, match=r"convv.*conv, dense"):
    run(TextureHead(16, "convv"), feature, train=True)


def test_an_up_convolution_is_bilinear_doubling_and_a_convolution(rng):
  x = rng.normal(size=(1, 5, 6, 4)).astype(np.float32)
  layer = UpConv(3)
  variables = layer.init(jax.random.key(0), jnp.asarray(x))
  result = layer.apply(variables, jnp.asarray(x))
  # The doubled map in plain NumPy, with zeros around the small one.
  small = np.pad(x[0].astype(np.float64), ((2, 2), (2, 2), (0, 0)))
  for axis in (0, 1):
    even = 0.75 * small + 0.25 * np.roll(small, 1, axis)
    odd = 0.75 * small + 0.25 * np.roll(small, -1, axis)
    small = np.stack([even, odd], axis + 1).reshape(
      [n * (2 if i == axis else 1) for i, n in enumerate(small.shape)]
    )
  doubled = small[3:-3, 3:-3].transpose(2, 0, 1)
  weight = np.asarray(variables["params"]["kernel"], np.float64).transpose(3, 2, 0, 1)
  expected = numpy_net.convolve(doubled, weight).transpose(1, 2, 0)
  np.testing.assert_allclose(result[0], expected, rtol=1e-4, atol=1e-6)


def test_depth_to_space_puts_phases_beside_each_other():
  x = jnp.arange(8.0).reshape(1, 1, 2, 4)
  np.testing.assert_array_equal(depth_to_space(x)[0, :, :, 0], [[0, 1, 4, 5], [2, 3, 6, 7]])


def test_a_cell_of_the_map_says_its_own_block_of_the_silhouette(rng):
  layout = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
  logits, variables = run(MaskHead(), jnp.asarray(layout))
  assert logits.shape == (2, 3 * BLOCK, 4 * BLOCK)
  kernel = np.asarray(variables["params"]["conv"]["kernel"])[0, 0]
  for row, column in np.ndindex(3, 4):
    block = logits[:, row * BLOCK : (row + 1) * BLOCK, column * BLOCK : (column + 1) * BLOCK]
    expected = layout[:, row, column] @ kernel  # rows of the block, one after the other
    np.testing.assert_allclose(block.reshape(2, -1), expected, atol=1e-5)


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
