"""The network for training from nothing: unit features, each centred on its own pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.models.dense_encoder import STRIDE, DenseEncoder, blocks_as_channels
from umr_jax.models.initialize import initialize


@pytest.fixture(scope="module")
def run():
  net = DenseEncoder(width=16, features=16, blocks=1)
  params, statistics = initialize(net, image_size=32, seed=0)
  assert statistics == {}
  return jax.jit(lambda x: net.apply({"params": params}, x, train=False))


def test_features_are_not_negative_and_have_length_one(run, rng):
  maps = run(rng.random((2, 48, 64, 3)).astype(np.float32))
  assert maps.shape == (2, 6, 8, 16)
  assert (np.asarray(maps) >= 0.0).all()
  np.testing.assert_allclose(np.linalg.norm(maps, axis=-1), 1.0, rtol=1e-3)


def test_an_image_has_the_same_features_alone_and_in_a_batch(run, rng):
  images = rng.random((3, 32, 32, 3)).astype(np.float32)
  np.testing.assert_allclose(run(images)[1:2], run(images[1:2]), rtol=1e-4, atol=1e-5)


def test_blocks_of_pixels_become_channels_of_their_own_cell(rng):
  x = rng.random((2, 8, 12, 3)).astype(np.float32)
  found = np.asarray(blocks_as_channels(jnp.asarray(x), 4))
  assert found.shape == (2, 2, 3, 48)
  np.testing.assert_array_equal(found[1, 1, 2].reshape(4, 4, 3), x[1, 4:8, 8:12])


def test_a_cell_sees_its_own_pixels_most(run, rng):
  images = rng.random((16, 64, 64, 3)).astype(np.float32)
  changed = images.copy()
  row, column = 3, 5
  cell = np.s_[:, STRIDE * row : STRIDE * (row + 1), STRIDE * column : STRIDE * (column + 1)]
  changed[cell] = 1.0 - changed[cell]
  gap = np.abs(np.asarray(run(changed) - run(images))).sum(axis=(0, -1))
  assert np.unravel_index(np.argmax(gap), gap.shape) == (row, column)
