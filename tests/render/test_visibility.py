"""rasterize: face ids, projected centroids and visibility, against the reference and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.render import render_scenes as scenes
from tests.render.render_scenes import compiled
from umr_jax.render import rasterize, reference, soft_rasterize
from umr_jax.render.visibility import visible_faces, visible_vertices

SIZE = (18, 26)


def square(left, top, right, bottom, depth):
  a, b = [left, top, depth], [right, top, depth]
  c, d = [right, bottom, depth], [left, bottom, depth]
  return np.array([[a, b, c], [a, c, d]], np.float32)


@pytest.mark.parametrize("aggr_rgb", ["softmax", "hard"])
def test_fragments_agree_with_the_reference(rng, aggr_rgb):
  faces = np.concatenate(
    [scenes.triangles(rng, 2, 12), scenes.broken_faces()[None].repeat(2, 0)], 1
  )
  texels = scenes.textures(rng, 2, 17, 4, 3)
  options = dict(sigma=1e-3, gamma=1e-3, aggr_rgb=aggr_rgb)
  draw = compiled(lambda f, t: rasterize(f, t, image_size=SIZE, **options))
  fragments = draw(faces, texels)
  for b in range(2):
    expected = reference.render(faces[b], texels[b], reference.Options(SIZE, **options))
    np.testing.assert_allclose(fragments.rgba[b], expected.rgba, atol=2e-4)
    np.testing.assert_array_equal(fragments.face_ids[b], expected.face_ids)
    np.testing.assert_array_equal(fragments.visible[b], expected.visible)
    np.testing.assert_allclose(fragments.landing[b], expected.projected_centroids, atol=1e-4)


def test_the_nearer_square_hides_the_other():
  far, near = square(-0.5, -0.5, 0.5, 0.5, 3.0), square(-0.6, -0.6, 0.6, 0.6, 2.0)
  faces = jnp.asarray(np.concatenate([far, near]))
  fragments = compiled(lambda f: rasterize(f, jnp.ones((4, 1, 1)), image_size=16))(faces)
  np.testing.assert_array_equal(fragments.visible, [False, False, True, True])
  # Pixels on the diagonal belong to both triangles: the first is taken.
  inside = np.abs((2 * np.arange(16) + 1 - 16) / 16) < 0.6
  covered = inside[:, None] & inside[None]
  np.testing.assert_array_equal(fragments.face_ids >= 0, covered)
  np.testing.assert_array_equal(np.diag(fragments.face_ids)[inside], 2)
  np.testing.assert_allclose(fragments.landing[2:].mean(axis=0), 0.0, atol=1e-5)


def test_every_pixel_of_a_dense_mesh_finds_its_nearest_face():
  """Many faces per pixel and many chunks: no face may be lost between minimum and comparison."""
  data = np.load(scenes.GOLDEN.parent / "bench_w.npz")
  faces = data["vertices"][:3][:, data["faces"]]
  draw = compiled(lambda f: rasterize(f, jnp.ones((3, 1280, 1, 1)), image_size=48, aggr_rgb="hard"))
  fragments = draw(faces)
  ids = np.asarray(fragments.face_ids)
  for b in range(3):
    expected = reference.render(
      faces[b], np.ones((1280, 1, 1)), reference.Options((48, 48), aggr_rgb="hard")
    )
    # A pixel's centre may lie on an edge within float32 of it.
    assert (ids[b] != expected.face_ids).mean() < 1e-3
    assert ((ids[b] < 0) != (expected.face_ids < 0)).sum() == 0


def test_the_centroid_of_an_invisible_face_is_the_origin_and_not_nan():
  faces = jnp.asarray(np.concatenate([square(5.0, 5.0, 6.0, 6.0, 2.0), scenes.broken_faces()]))
  fragments = compiled(lambda f: rasterize(f, jnp.ones((7, 1, 1)), image_size=8))(faces)
  np.testing.assert_array_equal(fragments.landing, 0.0)
  assert not fragments.visible.any()


def test_antialiased_face_numbers_are_those_of_the_nearest_sample(rng):
  faces, texels = scenes.jax_arrays(scenes.triangles(rng, 9), scenes.textures(rng, 9, 1, 1))
  fine = compiled(lambda f, t: rasterize(f, t, image_size=(12, 18)))(faces, texels)
  found = compiled(lambda f, t: rasterize(f, t, image_size=(6, 9), antialias=2))(faces, texels)
  samples = np.asarray(fine.face_ids).reshape(6, 2, 9, 2).swapaxes(1, 2).reshape(6, 9, 4)
  ids = np.asarray(found.face_ids)
  assert (samples == ids[..., None]).any(axis=-1).all()
  np.testing.assert_array_equal(ids == -1, (samples == -1).all(axis=-1))
  np.testing.assert_array_equal(found.visible, fine.visible)
  np.testing.assert_allclose(found.landing, fine.landing, atol=1e-6)


def test_only_the_image_of_the_fragments_is_differentiable(rng):
  faces, texels = scenes.jax_arrays(scenes.triangles(rng, 6), scenes.textures(rng, 6, 1, 3))

  def loss(f, t):
    fragments = rasterize(f, t, image_size=10, sigma=1e-3)
    return jnp.sum(fragments.rgba) + jnp.sum(fragments.landing)

  def plain(f, t):
    return jnp.sum(soft_rasterize(f, t, image_size=10, sigma=1e-3))

  found = compiled(jax.grad(loss, (0, 1)))(faces, texels)
  for gradient, expected in zip(
    found, compiled(jax.grad(plain, (0, 1)))(faces, texels), strict=True
  ):
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-3)


def test_visible_faces_counts_each_image_for_itself():
  ids = jnp.array([[[0, -1], [2, 2]], [[-1, -1], [-1, -1]]])
  np.testing.assert_array_equal(
    visible_faces(ids, num_faces=4), [[True, False, True, False], [False] * 4]
  )


def test_vertices_of_visible_faces_are_visible():
  faces = np.array([[0, 1, 2], [2, 3, 4], [4, 5, 6]])
  found = visible_vertices(
    jnp.array([[True, False, False], [False, True, True]]), faces, num_vertices=8
  )
  np.testing.assert_array_equal(found[0], np.arange(8) < 3)
  np.testing.assert_array_equal(found[1], (np.arange(8) > 1) & (np.arange(8) < 7))
