"""Shape, texture and camera heads: where they start, what they refuse, finite gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import numpy_net
from umr_jax.geometry import camera
from umr_jax.models.camera_heads import CameraHeads, _positive
from umr_jax.models.initialize import draw_variables
from umr_jax.models.mask_head import BLOCK, MaskHead
from umr_jax.models.shape_head import ShapeHead
from umr_jax.models.texture_head import TextureHead, UpConv, count_doublings, depth_to_space

D = 20


def run(head, feature, **options):
  """The head's outputs at its start, and its variables."""
  variables = draw_variables(head, feature, seed=0, **options)
  if "train" in options:
    return apply(head, variables, feature, **options)[0], variables
  return apply(head, variables, feature), variables


@functools.partial(jax.jit, static_argnums=0, static_argnames="train")
def apply(head, variables, feature, **options):
  return head.apply(variables, feature, mutable=["batch_stats"] if options else False, **options)


@pytest.fixture
def feature(rng):
  return jnp.asarray(rng.normal(size=(6, D)), jnp.float32)


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


@pytest.mark.parametrize("hypotheses", [1, 8])
def test_cameras_start_upright_and_of_the_template_s_size(feature, hypotheses):
  (cameras, logits), _ = run(CameraHeads(hypotheses, spread=False), feature, train=True)
  assert cameras.shape == (6, hypotheses, 7)
  np.testing.assert_array_equal(logits, np.zeros((6, hypotheses)))
  np.testing.assert_allclose(jnp.linalg.norm(cameras[..., 3:], axis=-1), 1.0, rtol=1e-5)
  np.testing.assert_allclose(cameras[..., 0], 1.0, atol=0.7)
  # The object's vertical points up in the image, whose y points down.
  up = camera.rotation(cameras)[..., :, 2]
  assert np.mean(np.asarray(up[..., 1])) < -0.9


def test_hypotheses_start_around_the_vertical(feature):
  heads = CameraHeads(8)
  variables = draw_variables(heads, feature, seed=0, train=True)
  variables["params"]["quaternion"]["kernel"] *= 0.0
  (cameras, _), _ = apply(heads, variables, feature, train=True)
  rotation = np.asarray(camera.rotation(cameras[0]))
  for k in range(8):
    angle = 2 * np.pi * k / 8
    turn = np.array(
      [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    upright = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
    np.testing.assert_allclose(rotation[k], upright @ turn, atol=1e-5)


@pytest.mark.parametrize("hypotheses", [1, 4])
def test_a_zero_quaternion_and_a_shut_scale_give_finite_numbers_and_gradients(feature, hypotheses):
  heads = CameraHeads(hypotheses)
  variables = draw_variables(heads, feature, seed=0, train=True)
  params = dict(variables["params"])
  params["quaternion"] = jax.tree.map(jnp.zeros_like, params["quaternion"])
  params["scale"] = {**params["scale"], "bias": params["scale"]["bias"] - 50.0}

  def loss(params):
    (cameras, logits), _ = heads.apply(
      {**variables, "params": params}, feature, train=True, mutable=["batch_stats"]
    )
    return jnp.sum(jnp.square(cameras)) + jnp.sum(logits), cameras

  gradient, cameras = jax.jit(jax.grad(loss, has_aux=True))(params)
  assert np.isfinite(cameras).all()
  assert (np.asarray(cameras[..., 0]) > 0.0).all()
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_heads_of_one_network_differ_from_each_other(feature):
  (cameras, _), _ = run(CameraHeads(4, spread=False), feature, train=True)
  assert not np.allclose(cameras[:, 0], cameras[:, 1])


def test_a_cell_of_the_map_says_its_own_block_of_the_silhouette(rng):
  layout = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
  logits, variables = run(MaskHead(), jnp.asarray(layout))
  assert logits.shape == (2, 3 * BLOCK, 4 * BLOCK)
  kernel = np.asarray(variables["params"]["conv"]["kernel"])[0, 0]
  for row, column in np.ndindex(3, 4):
    block = logits[:, row * BLOCK : (row + 1) * BLOCK, column * BLOCK : (column + 1) * BLOCK]
    expected = layout[:, row, column] @ kernel  # rows of the block, one after the other
    np.testing.assert_allclose(block.reshape(2, -1), expected, atol=1e-5)


def test_a_scale_that_reached_nothing_may_grow_again():

  x = jnp.array([-0.5, 0.0, 0.7])
  np.testing.assert_array_equal(_positive(x), [0.0, 0.0, jnp.float32(0.7)])
  np.testing.assert_array_equal(jax.grad(lambda x: _positive(x).sum())(x), 1.0)
