"""ResNet-18: sizes, and what it does on tiny maps."""

import jax
import jax.numpy as jnp
import pytest

from umr_jax.models.initialize import initialize
from umr_jax.models.resnet import ResNet18


@pytest.mark.parametrize(("size", "expected"), [(64, 2), (96, 3), (100, 4), (256, 8)])
def test_the_last_map_is_a_32nd_of_the_image_rounded_up(size, expected):
  images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
  net = ResNet18(8)
  shape = jax.eval_shape(
    lambda x: net.init_with_output(jax.random.key(0), x, train=True)[0], images
  )
  assert shape.shape == (2, expected, expected, 64)


def test_the_published_width_has_11_18_million_parameters():
  params, _ = initialize(ResNet18(64), image_size=64, seed=0)
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 11_176_512


def test_activations_neither_vanish_nor_explode_at_the_start(rng):
  net = ResNet18(8)
  params, stats = initialize(net, image_size=64, seed=0)
  images = jnp.asarray(rng.normal(size=(4, 64, 64, 3)), jnp.float32)
  variables = {"params": params, "batch_stats": stats}
  maps, _ = jax.jit(lambda v, x: net.apply(v, x, train=True, mutable=["batch_stats"]))(
    variables, images
  )
  assert 0.1 < float(jnp.std(maps)) < 10.0
