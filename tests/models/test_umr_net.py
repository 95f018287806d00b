"""The whole network: shapes, sizes, evaluation, gradients; and its start."""

import functools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from umr_jax.models.initialize import initialize


def images(rng, count=3, size=64):
  return jnp.asarray(rng.random((count, size, size, 3)), jnp.float32)


def test_one_set_of_parameters_serves_every_image_size(small, rng):
  net, params, stats = small
  for size in (64, 96, 256):
    x = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    prediction = jax.eval_shape(
      lambda x: net.apply({"params": params, "batch_stats": stats}, x, train=False), x
    )
    assert prediction.half_offsets.shape == (2, 25, 3)
    assert prediction.shape_code.shape == (2, 12)
    assert prediction.flow_map.shape == (2, 16, 32, 2)
    assert prediction.cameras.shape == (2, 4, 7)
    assert prediction.camera_logits.shape == (2, 4)


@pytest.mark.parametrize("shape", [(63, 63), (257, 257), (64, 96)])
def test_images_of_another_size_are_refused_when_traced(small, shape):
  net, params, stats = small
  x = jax.ShapeDtypeStruct((2, *shape, 3), jnp.float32)
  with pytest.raises(ValueError, match=f"{shape[0]} x {shape[1]}.*64 to 256"):
    jax.eval_shape(lambda x: net.apply({"params": params, "batch_stats": stats}, x, train=False), x)


def test_images_of_the_wrong_type_are_refused(small):
  net, params, stats = small
  with pytest.raises(jaxtyping.TypeCheckError, match="images"):
    net.apply(
      {"params": params, "batch_stats": stats}, jnp.zeros((1, 64, 64, 3), jnp.uint8), train=False
    )


def test_evaluation_treats_every_image_alone_and_needs_no_key(small, rng):
  net, params, stats = small
  run = jax.jit(functools.partial(net.apply, train=False))
  x = images(rng)
  whole = run({"params": params, "batch_stats": stats}, x)
  permuted = run({"params": params, "batch_stats": stats}, x[::-1])
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[::-1], atol=1e-5), whole, permuted)


def test_every_parameter_gets_a_finite_gradient(small, rng):
  net, params, stats = small

  def loss(params, x):
    prediction, updates = net.apply(
      {"params": params, "batch_stats": stats},
      x,
      train=True,
      noise=jnp.ones((3, 12)),
      mutable=["batch_stats"],
    )
    scored = prediction.replace(camera_logits=jax.nn.log_softmax(prediction.camera_logits))
    target = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size * 1.0)), scored)
    terms = jax.tree.map(lambda a, b: jnp.sum(a.ravel() * b), scored, target)
    return sum(jax.tree.leaves(terms)), updates

  gradient, updates = jax.jit(jax.grad(loss, has_aux=True))(params, images(rng))
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
    assert np.isfinite(leaf).all(), path
    assert np.any(np.asarray(leaf) != 0.0), path
  assert jax.tree.structure(updates["batch_stats"]) == jax.tree.structure(stats)
  assert all(
    np.any(np.asarray(new) != old)
    for new, old in zip(
      jax.tree.leaves(updates["batch_stats"]), jax.tree.leaves(stats), strict=True
    )
  )


def test_the_shape_head_s_bias_is_where_the_m_step_looks(small):
  _, params, _ = small
  assert params["shape_head"]["offsets"]["bias"].shape == (75,)
  assert params["shape_head"]["offsets"]["kernel"].shape == (12, 75)


def test_initialization_is_a_function_of_the_seed(make_net):
  net = make_net()
  first, again = (initialize(net, image_size=64, seed=3) for _ in range(2))
  jax.tree.map(np.testing.assert_array_equal, first, again)
  other, _ = initialize(net, image_size=64, seed=4)
  assert not np.array_equal(
    first[0]["shape_head"]["offsets"]["kernel"], other["shape_head"]["offsets"]["kernel"]
  )


def test_networks_that_differ_in_their_cameras_start_from_one_encoder(make_net):
  one, _ = initialize(make_net(hypotheses=1), image_size=64, seed=0)
  four, _ = initialize(make_net(hypotheses=4), image_size=96, seed=0)
  jax.tree.map(np.testing.assert_array_equal, one["encoder"], four["encoder"])


def test_initialization_has_the_structure_and_deviations_of_flax_s(small):
  net, params, stats = small
  shapes = jax.eval_shape(
    lambda: net.init(jax.random.key(0), jnp.zeros((2, 64, 64, 3)), train=True)
  )
  expected = {"params": shapes["params"], "batch_stats": shapes["batch_stats"]}
  found = {"params": params, "batch_stats": stats}
  assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, expected)
  assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}
  np.testing.assert_allclose(np.std(params["encoder"]["fc1"]["kernel"]), 0.02, rtol=0.03)
  np.testing.assert_allclose(np.std(params["shape_head"]["offsets"]["kernel"]), 1e-4, rtol=0.1)
  bound = 1.0 / np.sqrt(20)
  mean = params["encoder"]["mean"]["fc1"]["kernel"]
  assert 0.9 * bound < np.abs(mean).max() <= bound


def test_the_paper_s_network_has_the_paper_s_size(make_net):
  sizes = dict(encoder_width=64, feature_size=200, code_size=350, num_half=337, uv_height=128)

  def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))

  net = make_net(**sizes, hypotheses=8)
  params = jax.eval_shape(
    lambda: net.init(jax.random.key(0), jnp.zeros((2, 64, 64, 3)), train=True)
  )["params"]
  np.testing.assert_allclose(count(params["encoder"]["resnet"]), 11.18e6, rtol=1e-3)
  # Convolution and two fully connected layers (2.96 M), mean and variance heads (0.22 M).
  np.testing.assert_allclose(
    count(params["encoder"]) - count(params["encoder"]["resnet"]), 3.18e6, rtol=2e-3
  )
  np.testing.assert_allclose(count(params["shape_head"]), 0.355e6, rtol=1e-3)
  np.testing.assert_allclose(count(params["camera_heads"]), 0.74e6, rtol=1e-2)


def test_a_mask_head_changes_nothing_else(make_net, rng):
  plain, taught = make_net(), make_net(mask_head=True)
  params, stats = initialize(taught, image_size=64, seed=0)
  images_ = images(rng)
  full = taught.apply({"params": params, "batch_stats": stats}, images_, train=False)
  assert full.mask_logits.shape == (3, 32, 32)
  rest = {name: value for name, value in params.items() if name != "mask_head"}
  bare = plain.apply({"params": rest, "batch_stats": stats}, images_, train=False)
  assert bare.mask_logits is None
  for name in ("half_offsets", "flow_map", "cameras", "camera_logits"):
    np.testing.assert_allclose(getattr(bare, name), getattr(full, name), atol=1e-6)
