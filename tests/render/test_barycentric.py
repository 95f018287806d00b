"""Barycentric weights of pixels in faces, and the depth there."""

import jax.numpy as jnp
import numpy as np

from umr_jax.render import distance
from umr_jax.render.barycentric import barycentric, clip_weights, depth_at

ZERO = np.zeros((1, 1), np.float32)


def test_barycentric_weights_give_the_pixel_back(pairs):
  faces, pixels, rows = pairs
  edges = distance.edges_of(rows)
  height = distance.edge_distances(rows, edges, ZERO, ZERO)
  weights = np.concatenate(barycentric(height, rows), axis=-1)
  large = np.abs(np.asarray(rows.inverse_determinant[:, 0])) < 50.0
  np.testing.assert_allclose(weights.sum(axis=-1)[large], 1.0, atol=1e-4)
  back = np.einsum("nk,nkc->nc", weights, faces[..., :2])
  np.testing.assert_allclose(back[large], pixels[large], atol=1e-4)
  inside = distance.strictly_inside(height, edges)[:, 0]
  np.testing.assert_array_equal(inside, (weights > 0.0).all(axis=-1))


def test_clipped_weights_lie_within_the_face_and_sum_to_one(pairs):
  _, _, rows = pairs
  edges = distance.edges_of(rows)
  raw = barycentric(distance.edge_distances(rows, edges, ZERO, ZERO), rows)
  clipped, total = clip_weights(raw)
  weights = np.concatenate(clipped, axis=-1) / total
  assert (weights > 0.0).all()
  assert (weights < 1.0).all()
  np.testing.assert_allclose(weights.sum(axis=-1), 1.0, rtol=1e-6)


def test_depth_is_interpolated_perspectively(pairs):
  faces, _, rows = pairs
  weights = tuple(jnp.full((200, 1), w) for w in (0.2, 0.3, 0.5))
  expected = (np.array([0.2, 0.3, 0.5]) / faces[..., 2]).sum(axis=-1)
  depth = depth_at(tuple(3.0 * w for w in weights), 3.0, rows)[:, 0]
  np.testing.assert_allclose(depth, 1.0 / expected, rtol=1e-6)
