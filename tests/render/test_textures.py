"""Which texel of a face a pixel reads, against counted cells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.render.barycentric import clip_weights
from umr_jax.render.textures import texel_index


@pytest.mark.parametrize("side", [1, 2, 3, 6])
def test_texels_are_read_where_texels_belong(side):
  """Texel v R + u is the lower triangle of cell (u, v), or the upper one of the mirrored cell."""
  seen = set()
  for v in range(side):
    for u in range(side - v):
      low = np.array([u + 1 / 3, v + 1 / 3]) / side
      cells = [(low, v * side + u)]
      if u + v < side - 1:
        high = np.array([u + 2 / 3, v + 2 / 3]) / side
        cells.append((high, (side - 1 - v) * side + (side - 1 - u)))
      for (first, second), expected in cells:
        weights = tuple(jnp.full((1, 1), w) for w in (first, second, 1.0 - first - second))
        assert int(texel_index(weights, side)[0, 0]) == expected
        seen.add(expected)
  assert seen == set(range(side * side))


def test_corners_of_a_face_read_texels_of_that_face():
  for corner in np.eye(3):
    clipped, total = clip_weights(tuple(jnp.full((1, 1), w) for w in corner))
    weights = tuple(value / total for value in clipped)
    assert 0 <= int(texel_index(weights, 6)[0, 0]) < 36


@pytest.mark.parametrize("side", [2896, 2897, 4000])
def test_texels_of_the_largest_faces_have_their_numbers(side):
  """Up to 2 ** 23 texels a number is read off the bits of a float, and beyond it is converted."""
  u, v = np.array([[0, 7, side // 2, side - 1]]), np.array([[side - 1, 1000, side // 3, 0]])
  first, second = (u + 1 / 3) / side, (v + 1 / 3) / side
  weights = tuple(jnp.asarray(w, jnp.float32) for w in (first, second, 1.0 - first - second))
  found = jax.jit(texel_index, static_argnums=1)(weights, side)
  np.testing.assert_array_equal(found, v * side + u)
