"""soft_rasterize and soft_silhouette: golden vectors, the slow reference, hostile input."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.render import render_scenes as scenes
from tests.render.render_scenes import compiled, pull_back, relative
from umr_jax.render import (
  aggregate,
  pairs,
  rasterize,
  reference,
  soft_rasterize,
  soft_silhouette,
)
from umr_jax.render.binning import Grid

SIZE = (20, 28)
# Every value of every option meets every value of every other one.
MODES = [
  ("euclidean", "softmax", "prod", "surface"),
  ("euclidean", "softmax", "sum", "vertex"),
  ("euclidean", "hard", "prod", "vertex"),
  ("barycentric", "softmax", "prod", "vertex"),
  ("barycentric", "hard", "sum", "surface"),
]
OTHER_MODES = sorted(
  set(
    itertools.product(
      ("euclidean", "barycentric"), ("softmax", "hard"), ("prod", "sum"), ("surface", "vertex")
    )
  )
  - set(MODES)
)


@pytest.fixture(scope="module", params=range(scenes.NUM_GOLDEN))
def golden(request):
  options, arrays = scenes.golden_case(request.param)
  image, gradients = pull_back(
    lambda f, t: soft_rasterize(f, t, **options),
    *scenes.jax_arrays(arrays["face_vertices"], arrays["textures"]),
    cotangent=arrays["cotangent"],
  )
  return options, arrays, np.asarray(image), tuple(map(np.asarray, gradients))


def test_golden_images_agree(golden):
  _, arrays, image, _ = golden
  np.testing.assert_allclose(image[..., 3], arrays["rgba"][..., 3], atol=1e-4)
  np.testing.assert_allclose(image[..., :3], arrays["rgba"][..., :3], atol=1e-3)


@pytest.mark.parametrize("number", [0, 4])
def test_golden_silhouettes_agree(number):
  options, arrays = scenes.golden_case(number)
  shape = {name: options[name] for name in ("image_size", "sigma", "dist_eps")}
  alpha = compiled(lambda f: soft_silhouette(f, **shape))(arrays["face_vertices"])
  np.testing.assert_allclose(alpha, arrays["rgba"][..., 3], atol=1e-5)


def test_golden_gradients_on_faces_agree(golden):
  _, arrays, _, (on_faces, _) = golden
  assert relative(on_faces, arrays["grad_face_vertices"]) < 1e-3


def test_golden_gradients_on_textures_agree(golden):
  """The released kernel reads an uninitialised variable here (SoftRas issue 88).

  For a texel that a pixel did not read it adds what that variable still holds. With "hard" the
  compiler takes it to be the value itself, so that every texel of a face holds the sum over all.
  With "softmax" it holds, for texels before the one that was read, the previous channel's value,
  and after it this channel's. Channel 0 finds whatever an earlier face left there.
  """
  options, arrays, _, (_, on_textures) = golden
  expected = arrays["grad_textures"]
  largest = np.abs(expected).max()
  if options["texture_type"] == "vertex":
    assert relative(on_textures, expected) < 1e-3
    return
  until = np.cumsum(on_textures.astype(np.float64), axis=2)
  total = until[:, :, -1:]
  if options["aggr_rgb"] == "hard":
    np.testing.assert_allclose(
      np.broadcast_to(total, expected.shape), expected, atol=1e-3 * largest
    )
  else:
    found = until[..., 1:] + (total - until)[..., :-1]
    np.testing.assert_allclose(found, expected[..., 1:], atol=1e-3 * largest)
    np.testing.assert_allclose(until[:, :, -1], expected[:, :, -1], atol=1e-3 * largest)


def mode_scene(rng, mode):
  dist_func, aggr_rgb, aggr_alpha, texture_type = mode
  options = dict(
    sigma=1e-3,
    gamma=3e-3,
    dist_func=dist_func,
    aggr_rgb=aggr_rgb,
    aggr_alpha=aggr_alpha,
    texture_type=texture_type,
    background=np.array([0.1, 0.7, 0.3, 0.5], np.float32),
  )
  faces = np.concatenate([scenes.triangles(rng, 9), scenes.broken_faces()])
  faces = np.stack([faces, faces[::-1] * np.array([-1.0, 1.0, 1.0], np.float32)])
  texels = scenes.textures(rng, *faces.shape[:2], 3 if texture_type == "vertex" else 9, 4)
  return faces, texels, options


@pytest.mark.parametrize("mode", MODES, ids="-".join)
def test_modes_agree_with_the_reference(rng, mode):
  check_mode(rng, mode)


@pytest.mark.slow
@pytest.mark.parametrize("mode", OTHER_MODES, ids="-".join)
def test_other_modes_agree_with_the_reference(rng, mode):
  check_mode(rng, mode)


def check_mode(rng, mode):
  faces, texels, options = mode_scene(rng, mode)
  cotangent = rng.standard_normal((2, *SIZE, 5))
  image, (on_faces, on_texels) = pull_back(
    lambda f, t: soft_rasterize(f, t, image_size=SIZE, **options),
    *scenes.jax_arrays(faces, texels),
    cotangent=cotangent,
  )
  for b in range(2):
    slow = reference.Options(SIZE, **options)
    expected = reference.render(faces[b], texels[b], slow)
    np.testing.assert_allclose(image[b, ..., -1], expected.rgba[..., -1], atol=2e-5)
    np.testing.assert_allclose(image[b, ..., :-1], expected.rgba[..., :-1], atol=2e-4)
    want_faces, want_texels = reference.gradients(faces[b], texels[b], cotangent[b], slow)
    assert relative(on_faces[b], want_faces) < 3e-4
    assert relative(on_texels[b], want_texels) < 3e-4
    broken = slice(9, None) if b == 0 else slice(0, 5)
    np.testing.assert_array_equal(on_faces[b, broken], 0.0)
    np.testing.assert_array_equal(on_texels[b, broken], 0.0)


def test_near_and_far_cut_colour_and_gradients_but_not_alpha(rng):
  faces = scenes.triangles(rng, 8, depth=(0.6, 1.6))
  texels = scenes.textures(rng, 8, 4, 3)
  options = dict(sigma=1e-3, gamma=1e-2, near=0.9, far=1.3)
  cotangent = rng.standard_normal((*SIZE, 4))
  image, (on_faces, on_texels) = pull_back(
    lambda f, t: soft_rasterize(f, t, image_size=SIZE, **options),
    *scenes.jax_arrays(faces, texels),
    cotangent=cotangent,
  )
  slow = reference.Options(SIZE, **options)
  np.testing.assert_allclose(image, reference.render(faces, texels, slow).rgba, atol=2e-4)
  want_faces, want_texels = reference.gradients(faces, texels, cotangent, slow)
  assert relative(on_faces, want_faces) < 3e-4
  assert relative(on_texels, want_texels) < 3e-4
  uncut = compiled(lambda f: soft_silhouette(f, image_size=SIZE, sigma=1e-3))(faces)
  np.testing.assert_allclose(image[..., -1], uncut, atol=1e-6)


def test_single_sided_hides_the_colour_of_anticlockwise_faces(rng):
  faces, texels = scenes.triangles(rng, 8), scenes.textures(rng, 8, 4, 3)
  options = dict(sigma=1e-3, gamma=1e-2, double_sided=False)
  draw = compiled(lambda f, t: soft_rasterize(f, t, image_size=SIZE, **options))
  slow = reference.render(faces, texels, reference.Options(SIZE, **options))
  np.testing.assert_allclose(draw(faces, texels), slow.rgba, atol=2e-4)
  # Clockwise as seen on the screen, where y points down: right, then down.
  clockwise = np.array([[[-0.5, -0.5, 2.0], [0.5, -0.5, 2.0], [0.5, 0.5, 2.0]]] * 8, np.float32)
  white = np.ones((8, 4, 3), np.float32)
  shown, hidden = draw(clockwise, white), draw(clockwise[:, ::-1].copy(), white)
  np.testing.assert_allclose(shown[..., 0].max(), 1.0, rtol=1e-6)
  np.testing.assert_array_equal(hidden[..., 0], 0.0)
  np.testing.assert_allclose(shown[..., 3], hidden[..., 3], atol=1e-5)


def test_silhouette_gradient_is_the_slope_of_the_reference(rng):
  faces = scenes.triangles(rng, 5)
  weights = rng.standard_normal(SIZE)
  # The cut at dist_eps is a jump; at 1e-10 it is too small for a difference quotient to see.
  options = dict(sigma=2e-3, dist_eps=1e-10)
  slow = reference.Options(SIZE, **options)

  def objective(values):
    return (weights * reference.render(values, np.zeros((5, 1, 1)), slow).rgba[..., 1]).sum()

  (gradient,) = pull_back(
    lambda f: soft_silhouette(f, image_size=SIZE, **options), jnp.asarray(faces), cotangent=weights
  )[1]
  base, step = faces.astype(np.float64), 1e-6
  expected = np.zeros(faces.shape)
  for index in np.ndindex(*faces.shape):
    move = np.zeros(faces.shape)
    move[index] = step
    expected[index] = (objective(base + move) - objective(base - move)) / (2.0 * step)
  assert relative(gradient, expected) < 1e-3


@pytest.mark.parametrize("name", ["sigma", "gamma", "background"])
def test_traced_settings_get_the_slope_of_the_reference(rng, name):
  faces, texels = scenes.triangles(rng, 7), scenes.textures(rng, 7, 4, 3)
  weights = rng.standard_normal((*SIZE, 4))
  values = dict(sigma=2e-3, gamma=5e-3, background=0.4)

  def objective(value):
    options = reference.Options(SIZE, dist_eps=1e-10, **{**values, name: value})
    return (weights * reference.render(faces, texels, options).rgba).sum()

  def fast(value):
    options = {**values, name: value}
    image = soft_rasterize(
      *scenes.jax_arrays(faces, texels), image_size=SIZE, dist_eps=1e-10, **options
    )
    return jnp.sum(jnp.asarray(weights, jnp.float32) * image)

  step = 1e-4 * values[name]
  expected = (objective(values[name] + step) - objective(values[name] - step)) / (2.0 * step)
  found = compiled(jax.grad(fast))(jnp.float32(values[name]))
  np.testing.assert_allclose(found, expected, rtol=2e-3)


def test_silhouette_gradient_on_sigma_is_the_slope_of_the_image(rng):
  faces = jnp.asarray(scenes.triangles(rng, 7))

  def total(sigma):
    return jnp.sum(soft_silhouette(faces, image_size=SIZE, sigma=sigma, dist_eps=1e-10))

  value = compiled(total)
  numeric = (value(2.02e-3) - value(1.98e-3)) / 4e-5
  found = compiled(jax.grad(total))(jnp.float32(2e-3))
  np.testing.assert_allclose(found, numeric, rtol=1e-2)


def test_broken_faces_change_nothing_and_get_no_gradient(rng):
  good, broken = scenes.triangles(rng, 6), scenes.broken_faces()
  faces = np.concatenate([broken[:3], good, broken[3:]])
  kept = slice(3, 9)
  cotangent = rng.standard_normal(SIZE)

  def draw(f):
    return soft_silhouette(f, image_size=SIZE, sigma=1e-3)

  alpha, (gradient,) = pull_back(draw, jnp.asarray(faces), cotangent=cotangent)
  clean, (expected,) = pull_back(draw, jnp.asarray(good), cotangent=cotangent)
  np.testing.assert_allclose(alpha, clean, atol=1e-6)
  np.testing.assert_allclose(gradient[kept], expected, rtol=1e-4, atol=1e-4)
  np.testing.assert_array_equal(np.delete(np.asarray(gradient), np.arange(3, 9), axis=0), 0.0)


@pytest.mark.parametrize(
  ("aggr_rgb", "dist_func"), [("softmax", "euclidean"), ("hard", "barycentric")]
)
def test_awkward_faces_give_finite_values_and_gradients(rng, aggr_rgb, dist_func):
  faces = jnp.asarray(np.concatenate([scenes.awkward_faces(), scenes.triangles(rng, 3)]))
  texels = jnp.asarray(scenes.textures(rng, faces.shape[0], 4, 3))

  def both(sigma, gamma, f, t):
    image, pull = jax.vjp(
      lambda *inputs: soft_rasterize(
        *inputs[:2],
        image_size=12,
        sigma=inputs[2],
        gamma=inputs[3],
        aggr_rgb=aggr_rgb,
        dist_func=dist_func,
      ),
      *(f, t, sigma, gamma),
    )
    return image, pull(jnp.ones_like(image))

  both = compiled(both)
  for sigma, gamma in ((1e-4, 1e-4), (1e-7, 1e-7), (1e-1, 1.0)):
    for value in jax.tree.leaves(both(sigma, gamma, faces, texels)):
      assert np.isfinite(value).all()


def test_awkward_faces_give_finite_silhouettes_and_gradients():
  faces = jnp.asarray(scenes.awkward_faces())
  alpha, (gradient,) = pull_back(
    lambda f: soft_silhouette(f, image_size=12, sigma=1e-5), faces, cotangent=np.ones((12, 12))
  )
  assert np.isfinite(alpha).all()
  assert np.isfinite(gradient).all()


def test_stacked_faces_saturate_without_harm():
  face = jnp.array([[-0.8, -0.8, 2.0], [0.8, -0.8, 2.0], [0.0, 0.8, 2.0]])
  faces = jnp.broadcast_to(face, (200, 3, 3))
  alpha, (gradient,) = pull_back(
    lambda f: soft_silhouette(f, image_size=16, sigma=1e-4), faces, cotangent=np.ones((16, 16))
  )
  assert alpha.max() == 1.0
  assert np.isfinite(gradient).all()


def test_a_face_far_outside_the_image_still_leaves_the_background():
  faces = jnp.array([[[5.0, 5.0, 2.0], [6.0, 5.0, 2.0], [5.0, 6.0, 2.0]]])
  draw = compiled(lambda f, t: soft_rasterize(f, t, image_size=(5, 9), background=0.25))
  image = draw(faces, jnp.ones((1, 1, 2)))
  np.testing.assert_allclose(image[..., :2], 0.25)
  np.testing.assert_array_equal(image[..., 2], 0.0)


def test_no_faces_give_the_background():
  faces, texels = jnp.zeros((2, 0, 3, 3)), jnp.zeros((2, 0, 4, 3))
  fragments = rasterize(faces, texels, image_size=(4, 6), background=0.5, antialias=2)
  np.testing.assert_allclose(fragments.rgba[..., :3], 0.5)
  np.testing.assert_array_equal(fragments.rgba[..., 3], 0.0)
  np.testing.assert_array_equal(fragments.face_ids, -1)
  assert fragments.landing.shape == (2, 0, 2)
  assert soft_silhouette(faces, image_size=4).shape == (2, 4, 4)


def test_antialias_averages_a_larger_image(rng):
  faces, texels = scenes.jax_arrays(scenes.triangles(rng, 2, 6), scenes.textures(rng, 2, 6, 4, 3))
  large = compiled(lambda f, t: soft_rasterize(f, t, image_size=(12, 18)))(faces, texels)
  expected = large.reshape(2, 4, 3, 6, 3, 4).mean(axis=(2, 4))
  draw = compiled(lambda f, t: soft_rasterize(f, t, image_size=(4, 6), antialias=3))
  found = draw(faces, texels)
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_any_leading_dimensions_give_the_images_one_by_one(rng):
  faces, texels = scenes.jax_arrays(
    scenes.triangles(rng, 2, 3, 5), scenes.textures(rng, 2, 3, 5, 1, 2)
  )
  draw = compiled(lambda f, t: soft_rasterize(f, t, image_size=SIZE))
  images = draw(faces, texels)
  alphas = compiled(lambda f: soft_silhouette(f, image_size=SIZE))(faces)
  for index in np.ndindex(2, 3):
    alone = draw(faces[index], texels[index])
    np.testing.assert_allclose(images[index], alone, atol=1e-6)
    np.testing.assert_allclose(alphas[index], alone[..., -1], atol=1e-6)


def test_jit_changes_nothing(rng):
  faces = jnp.asarray(scenes.triangles(rng, 5))
  eager = soft_silhouette(faces, image_size=12, sigma=1e-3)
  jitted = jax.jit(lambda f, s: soft_silhouette(f, image_size=12, sigma=s))
  np.testing.assert_allclose(jitted(faces, 1e-3), eager, atol=1e-6)


def test_every_device_of_a_pmap_draws_its_share(rng):
  faces, texels = scenes.jax_arrays(
    scenes.triangles(rng, 4, 2, 5), scenes.textures(rng, 4, 2, 5, 4, 3)
  )

  def total(f, t):
    alpha = soft_silhouette(f, image_size=12, sigma=1e-3)
    image = rasterize(f, t, image_size=12, sigma=1e-3, gamma=1e-2).rgba
    return jnp.sum(jnp.square(alpha)) + jnp.sum(jnp.square(image))

  slopes = jax.grad(total, (0, 1))
  for found, expected in zip(
    jax.pmap(slopes)(faces, texels), compiled(slopes)(faces, texels), strict=True
  ):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(image_size=0), "image_size"),
    (dict(image_size=(4, -1)), "image_size"),
    (dict(image_size=4, antialias=0), "antialias"),
    (dict(image_size=4, sigma=0.0), "sigma"),
    (dict(image_size=4, gamma=-1.0), "gamma"),
    (dict(image_size=4, dist_eps=0.7), "dist_eps"),
    (dict(image_size=4, near=5.0, far=2.0), "near < far"),
    (dict(image_size=4, texture_type="vertex"), "T = 3"),
  ],
)
def test_options_without_meaning_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    soft_rasterize(jnp.ones((1, 3, 3)), jnp.ones((1, 4, 3)), **options)


def test_texels_that_make_no_square_are_refused():
  with pytest.raises(ValueError, match="square"):
    soft_rasterize(jnp.ones((1, 3, 3)), jnp.ones((1, 5, 3)), image_size=4)


def test_textures_of_another_number_of_faces_are_refused():
  with pytest.raises(ValueError, match=r"textures: found shape \(3, 4, 3\); expected \(2, T, C\)"):
    soft_rasterize(jnp.ones((2, 3, 3)), jnp.ones((3, 4, 3)), image_size=4)


GROUPS = dict(image_size=SIZE, sigma=1e-3, gamma=3e-3, background=0.3)


def test_each_output_can_have_corners_of_its_own(rng):
  """The stop-gradients of training in one call: alpha moves these corners, colour those."""
  faces, texels = scenes.jax_arrays(scenes.triangles(rng, 2, 9), scenes.textures(rng, 2, 9, 4, 3))
  cotangent = rng.standard_normal((2, *SIZE, 4)).astype(np.float32)

  def draw(f, c, t):
    return soft_rasterize(f, t, color_vertices=c, **GROUPS)

  _, (on_alpha, on_color, on_texels) = pull_back(draw, faces, faces, texels, cotangent=cotangent)

  def together(cotangent):
    return pull_back(
      lambda f, t: soft_rasterize(f, t, **GROUPS), faces, texels, cotangent=cotangent
    )[1]

  only_alpha, only_color = cotangent.copy(), cotangent.copy()
  only_alpha[..., :-1], only_color[..., -1] = 0.0, 0.0
  assert relative(on_alpha, np.asarray(together(only_alpha)[0])) < 1e-5
  assert relative(on_color, np.asarray(together(only_color)[0])) < 1e-5
  both, texels_of_both = together(cotangent)
  assert relative(on_alpha + on_color, np.asarray(both)) < 1e-5
  assert relative(on_texels, np.asarray(texels_of_both)) < 1e-5


def test_channels_can_be_kept_from_the_geometry(rng):
  """Colour and parts in one pass: both move the textures, parts alone the corners."""
  faces, texels = scenes.jax_arrays(scenes.triangles(rng, 7), scenes.textures(rng, 7, 4, 5))
  cotangent = rng.standard_normal((*SIZE, 6)).astype(np.float32)
  reached = (False, True, False, True, True)
  _, (on_faces, on_texels) = pull_back(
    lambda f, t: soft_rasterize(f, t, geometry_channels=reached, **GROUPS),
    faces, texels, cotangent=cotangent,
  )  # fmt: skip

  def whole(cotangent):
    return pull_back(
      lambda f, t: soft_rasterize(f, t, **GROUPS), faces, texels, cotangent=cotangent
    )[1]

  masked = cotangent * np.array([*reached, True], np.float32)
  assert relative(on_faces, np.asarray(whole(masked)[0])) < 1e-5
  assert relative(on_texels, np.asarray(whole(cotangent)[1])) < 1e-5
  with pytest.raises(ValueError, match="2 geometry_channels for 5 channels"):
    soft_rasterize(faces, texels, geometry_channels=(True, False), **GROUPS)


def test_checkpointed_drawing_has_the_same_gradient(rng):
  faces = jnp.asarray(scenes.triangles(rng, 6))

  def total(f):
    return jnp.sum(jnp.square(soft_silhouette(f, image_size=SIZE, sigma=1e-3)))

  found = jax.grad(jax.checkpoint(total))(faces)
  np.testing.assert_allclose(found, jax.grad(total)(faces), rtol=1e-5, atol=1e-6)


def test_more_rows_than_any_chunk_holds_are_all_drawn():
  """Hundreds of faces over the whole image, far beyond what a fixed capacity would foresee."""
  face = np.array([[-3.0, -3.0, 2.0], [3.0, -3.0, 2.0], [0.0, 3.0, 2.0]], np.float32)
  depth = np.linspace(2.0, 4.0, 700, dtype=np.float32)
  faces = np.repeat(face[None], 700, axis=0)
  faces[:, :, 2] = depth[:, None]
  # As a sum, every single face counts: one that were dropped would be missed.
  image = soft_rasterize(
    jnp.asarray(faces), jnp.ones((700, 1, 1)), image_size=128, aggr_alpha="sum", sigma=1e-2
  )
  one = soft_rasterize(
    jnp.asarray(face[None]), jnp.ones((1, 1, 1)), image_size=128, aggr_alpha="sum", sigma=1e-2
  )
  np.testing.assert_allclose(image[..., 1], one[..., 1], rtol=1e-4)


def test_tiles_that_saturate_are_no_loss(rng):
  """A pile of faces under which nothing passes, beside a rim with a gradient."""
  face = np.array([[-0.9, -0.9, 2.0], [0.9, -0.9, 2.0], [0.0, 0.9, 2.0]], np.float32)
  faces = np.repeat(face[None], 5, axis=0) + 0.05 * rng.standard_normal((5, 3, 3))
  faces = faces.astype(np.float32)
  cotangent = rng.standard_normal((40, 40))
  options = reference.Options((40, 40), sigma=1e-4)
  expected, _ = reference.gradients(
    faces, np.zeros((5, 1, 1)), np.stack([0 * cotangent, cotangent], -1), options
  )
  (found,) = pull_back(
    lambda f: soft_silhouette(f, image_size=40, sigma=1e-4),
    jnp.asarray(faces),
    cotangent=cotangent,
  )[1]
  assert relative(found[..., :2], expected[..., :2]) < 1e-4


def test_a_pair_nearer_than_the_nearest_weighs_no_more_than_one():
  """At the border of the support rounding may add a pair that the forward pass did not have."""
  depth = jnp.array([[2.0, 3.0, 2.0]])
  fields = dict.fromkeys(pairs.Pairs._fields) | {"depth": depth}
  settings = pairs.Settings(Grid(4, 4))
  weights = aggregate.softmax_weights(
    pairs.Pairs(**fields),
    jnp.array([[1e4, 1e4, jnp.inf]]),
    jnp.full((1, 3), 3.0),
    settings,
    jnp.float32(1e-7),
  )
  np.testing.assert_array_equal(weights, [[1.0, 1.0, 0.0]])


def test_faces_without_area_are_rendered_as_their_outline():
  """SoftRas divides zero by zero there. As on any outline D is 1/2, and less beside it."""
  ends, middle = [[-0.5, 0.0, 2.0], [0.5, 0.0, 2.0]], [0.1, 0.0, 2.0]
  line, twice = np.array([[*ends, middle], [*ends, ends[1]]], np.float32)
  point = np.full((3, 3), [0.25, 0.25, 2.0], np.float32)
  size, sigma = 16, 1e-2
  x, y = np.meshgrid(*2 * [(2 * np.arange(size) + 1 - size) / size])
  to_line = np.square(np.maximum(np.abs(x) - 0.5, 0.0)) + np.square(y)
  to_point = np.square(x - 0.25) + np.square(y - 0.25)
  for face, squared in ((line, to_line), (twice, to_line), (point, to_point)):
    draw = functools.partial(soft_silhouette, image_size=size, sigma=sigma)
    alpha, pull = jax.vjp(draw, jnp.asarray(face)[None])
    expected = 1.0 / (1.0 + np.exp(squared / sigma))
    np.testing.assert_allclose(alpha, np.where(expected > 1e-4, expected, 0.0), atol=1e-5)
    assert alpha.max() <= 0.5
    (gradient,) = pull(jnp.ones_like(alpha) * np.float32(x))
    assert np.isfinite(gradient).all() and np.abs(gradient[..., :2]).max() > 0.01
    np.testing.assert_array_equal(gradient[..., 2], 0.0)
