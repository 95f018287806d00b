"""The distance of one (pixel, face) pair, against samples of the outline."""

import numpy as np

from umr_jax.render import distance

ZERO = np.zeros((1, 1), np.float32)


def test_nearest_point_is_the_nearest_of_many_on_the_outline(pairs):
  faces, pixels, rows = pairs
  edges = distance.edges_of(rows)
  found = distance.locate_nearest(rows, edges, ZERO, ZERO)
  along = np.linspace(0.0, 1.0, 2001)[:, None]
  for f in range(len(faces)):
    a, b = faces[f, :, None, :2], np.roll(faces[f], -1, axis=0)[:, None, :2]
    outline = ((1.0 - along) * a + along * b).reshape(-1, 2)
    expected = np.linalg.norm(outline - pixels[f], axis=-1).min()
    np.testing.assert_allclose(np.sqrt(found.squared[f, 0]), expected, atol=1e-3)
  closest = distance.closest_point(rows, ZERO, ZERO, found.place)
  xy = np.concatenate([closest.x, closest.y], axis=-1)
  np.testing.assert_allclose((xy**2).sum(axis=-1), found.squared[:, 0], rtol=1e-4, atol=1e-7)
  weights = np.concatenate(closest.weights, axis=-1)
  np.testing.assert_allclose(
    pixels + xy, np.einsum("nk,nkc->nc", weights, faces[..., :2]), atol=1e-6
  )
