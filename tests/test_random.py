"""Keys: what is drawn for an image belongs to the image."""

import jax
import jax.numpy as jnp
import numpy as np

from umr_jax.random import per_image_keys


def drawn(index, key):
  return np.asarray(jax.vmap(jax.random.uniform)(per_image_keys(jax.random.key(key), index)))


def test_a_draw_belongs_to_the_image_and_not_to_its_place_in_the_batch():
  every = drawn(jnp.arange(8), 3)
  np.testing.assert_array_equal(drawn(jnp.array([6, 2]), 3), every[[6, 2]])
  assert len(np.unique(every)) == 8
  assert (drawn(jnp.arange(8), 4) != every).all()
