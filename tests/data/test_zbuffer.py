"""The NumPy depth buffer: against a per-pixel loop, occlusion, culling, and what is off screen."""

import numpy as np
import pytest

from umr_jax.data import zbuffer as module
from umr_jax.data.zbuffer import zbuffer

SIZE = 24


def _loop(projected, faces, size):
  """The nearest face of every pixel, by testing all faces at all pixels."""
  depth, winner = np.full((size, size), np.inf), np.full((size, size), -1)
  for row in range(size):
    for column in range(size):
      point = (2.0 * np.array([column, row]) + 1.0 - size) / size
      for index, face in enumerate(faces):
        a, b, c = projected[face]
        matrix = np.array([[a[0], b[0], c[0]], [a[1], b[1], c[1]], [1.0, 1.0, 1.0]])
        if abs(np.linalg.det(matrix)) < 1e-9:
          continue
        weights = np.linalg.solve(matrix, [*point, 1.0])
        if (weights < 0.0).any():
          continue
        z = weights @ [a[2], b[2], c[2]]
        if z < depth[row, column]:
          depth[row, column], winner[row, column] = z, index
  return depth, winner


@pytest.fixture
def soup(rng):
  points = rng.uniform(-1.3, 1.3, (36, 3))
  points[:, 2] += 5.0
  return points, np.arange(36).reshape(12, 3)


@pytest.mark.parametrize("chunk", [1 << 21, 50], ids=["one chunk", "many chunks"])
def test_matches_the_loop_it_vectorises(soup, chunk, monkeypatch):
  monkeypatch.setattr(module, "_CHUNK", chunk)
  hits = zbuffer(*soup, size=SIZE)
  depth, winner = _loop(*soup, SIZE)
  found = np.full(SIZE * SIZE, -1)
  found[hits.pixels] = hits.faces
  np.testing.assert_array_equal(found.reshape(SIZE, SIZE), winner)
  np.testing.assert_allclose(hits.depth.reshape(SIZE, SIZE), depth, rtol=1e-9)


def test_weights_give_the_pixel_centre_back(soup):
  projected, faces = soup
  hits = zbuffer(projected, faces, size=SIZE)
  points = np.einsum("nk,nkc->nc", hits.weights, projected[faces[hits.faces]])
  expected = np.stack([hits.pixels % SIZE, hits.pixels // SIZE], axis=-1)
  np.testing.assert_allclose(points[:, :2], (2.0 * expected + 1.0 - SIZE) / SIZE, atol=1e-9)


def test_a_closed_surface_looks_the_same_when_its_far_side_is_culled():
  corners = np.array([[0, 0, -0.9], [0.8, 0.5, 0.3], [-0.7, 0.6, 0.2], [0.1, -0.8, 0.4]])
  faces = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]])
  a, b, c = (corners[faces[:, i]] for i in range(3))
  outward = np.einsum("fc,fc->f", np.cross(b - a, c - a), a + b + c - 3 * corners.mean(axis=0))
  faces = np.where(outward[:, None] > 0, faces, faces[:, ::-1])
  whole = zbuffer(corners + np.array([0, 0, 5]), faces, size=SIZE)
  culled = zbuffer(corners + np.array([0, 0, 5]), faces, size=SIZE, cull=True)
  assert whole.pixels.size > 50
  np.testing.assert_array_equal(whole.pixels, culled.pixels)
  np.testing.assert_array_equal(whole.faces, culled.faces)


def test_nothing_is_drawn_of_what_is_off_screen_degenerate_or_not_finite():
  triangle = np.array([[0.0, 0.0, 5.0], [0.5, 0.0, 5.0], [0.0, 0.5, 5.0]])
  for points in (
    triangle + np.array([3.0, 0.0, 0.0]),
    triangle * [1, 0, 1],
    triangle * [np.nan, 1, 1],
  ):
    hits = zbuffer(points, np.array([[0, 1, 2]]), size=SIZE)
    assert hits.pixels.size == 0
    assert np.isinf(hits.depth).all()
