"""The texture terms: their loops and scales, where their gradients go, empty images."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import safetensors.numpy

from experiments.studies.train_benchmark import random_alexnet
from umr_jax.losses.texture import (
  flow_correction_loss,
  texture_cycle_loss,
  texture_distance,
  texture_distance_from,
  texture_dt_loss,
)
from umr_jax.models.perceptual import load_perceptual, perceptual_distance


def loop(rendered, alpha, image, mask):
  """One image in float64, as the docstring's formula reads."""
  d = rendered * alpha[..., None] - image * mask[..., None]
  u = alpha + mask - alpha * mask
  total, levels = 0.0, 0

  def weighted(x, w):
    return ((np.sqrt(x * x + 1e-6) - 1e-3).mean(axis=-1) * w).sum() / w.sum()

  while True:
    total += weighted(d, u)
    total += 0.5 * weighted(d[:, 1:] - d[:, :-1], np.maximum(u[:, 1:], u[:, :-1]))
    total += 0.5 * weighted(d[1:] - d[:-1], np.maximum(u[1:], u[:-1]))
    levels += 1
    if levels == 4 or min(u.shape) < 16:
      return total / levels
    half = [(n + 1) // 2 for n in u.shape]
    new_d, new_u = np.zeros((*half, 3)), np.zeros(half)
    for y in range(u.shape[0]):
      for x in range(u.shape[1]):
        new_d[y // 2, x // 2] += d[y, x] / 4
        new_u[y // 2, x // 2] += u[y, x] / 4
    d, u = new_d, new_u


def disc(size, radius=0.6, shift=0.0):
  centres = (2 * np.arange(size) + 1 - size) / size
  return (np.hypot(centres[None] - shift, centres[:, None]) < radius).astype(np.float32)


@pytest.fixture
def case(rng):
  rendered, image = rng.uniform(size=(2, 2, 24, 33, 3))
  alpha, mask = rng.uniform(size=(2, 2, 24, 33))
  arrays = {"rendered": rendered, "alpha": alpha, "image": image, "mask": mask}
  return {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()}


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_matches_the_loop_it_vectorises(case, transform):
  arrays = {name: np.asarray(array, np.float64) for name, array in case.items()}
  expected = [loop(**{name: array[b] for name, array in arrays.items()}) for b in range(2)]
  np.testing.assert_allclose(transform(texture_distance)(**case), expected, rtol=1e-5)


def test_equal_images_are_at_distance_zero_whatever_lies_outside(case):
  mask = jnp.asarray(np.stack([disc(32)] * 2))
  image = jnp.asarray(np.random.default_rng(1).uniform(size=(2, 32, 32, 3)), jnp.float32)
  inside = mask[..., None] > 0.0
  distance = jax.jit(texture_distance)(
    rendered=jnp.where(inside, image, 0.3), alpha=mask, image=image, mask=mask
  )
  np.testing.assert_allclose(distance, 0.0, atol=1e-6)


def test_black_on_white_is_about_one_and_grows_with_the_difference():
  mask = jnp.asarray(disc(64))
  image = jnp.ones((64, 64, 3))
  distance = jax.jit(texture_distance)
  values = [
    float(distance(rendered=image * c, alpha=mask, image=image, mask=mask))
    for c in (1.0, 0.9, 0.5, 0.0)
  ]
  assert values == sorted(values)
  assert 0.8 < values[-1] < 1.6
  # Linear but for the last visible step.
  np.testing.assert_allclose(values[2] / values[3], 0.5, atol=0.01)


def test_the_coarse_levels_feel_a_displaced_patch():
  # Noise on noise: at a single scale every shift of at least one pixel costs the same.
  image = jnp.asarray(np.random.default_rng(2).uniform(size=(64, 64, 3)), jnp.float32)
  mask = jnp.ones((64, 64))
  distance = jax.jit(texture_distance)
  values = [
    distance(rendered=jnp.roll(image, shift, axis=1), alpha=mask, image=image, mask=mask)
    for shift in (1, 2, 4, 8)
  ]
  assert values == sorted(values)
  assert values[0] < 0.9 * values[-1]


def test_gradient_reaches_render_and_alpha_but_not_the_weights(case):
  gradient = jax.jit(
    jax.grad(lambda arrays: texture_distance(**arrays).sum()),
  )
  grads = gradient(case)
  for name in ("rendered", "alpha"):
    assert np.isfinite(grads[name]).all()
    assert (grads[name] != 0.0).any()
  # Black on black: covering more of it changes only the weights, and so must not pay.
  case["rendered"] = jnp.zeros_like(case["rendered"])
  assert (gradient(case)["alpha"] == 0.0).all()


def test_descent_brings_the_render_to_the_image(case):
  rendered = jnp.full_like(case["rendered"], 0.5)
  arrays = {**case, "alpha": jnp.ones_like(case["alpha"]), "mask": jnp.ones_like(case["mask"])}
  value = jax.jit(jax.value_and_grad(lambda r: texture_distance(**{**arrays, "rendered": r}).sum()))
  before, _ = value(rendered)
  for step in range(60):
    _, grad = value(rendered)
    rendered -= 0.05 * 0.95**step * jnp.sign(grad)
  after, _ = value(rendered)
  assert after < 0.3 * before


@pytest.mark.parametrize("size", [1, 8, 31])
def test_empty_silhouettes_cost_nothing_and_have_finite_gradients(size):
  colour, empty = jnp.full((size, size, 3), 0.5), jnp.zeros((size, size))
  function = jax.value_and_grad(
    lambda r, a: texture_distance(rendered=r, alpha=a, image=colour, mask=empty), argnums=(0, 1)
  )
  value, grads = jax.jit(function)(colour, empty)
  assert value == 0.0
  assert all(np.isfinite(g).all() for g in grads)


def test_another_image_size_is_refused(case):
  case["image"] = case["image"][:, :1]
  with pytest.raises(jaxtyping.TypeCheckError, match="image"):
    texture_distance(**case)


def test_the_perceptual_distance_is_that_of_every_hypothesis_render(tmp_path, rng):
  path = tmp_path / "alexnet.safetensors"
  safetensors.numpy.save_file(random_alexnet(), path)
  rendered, image = (jnp.asarray(rng.uniform(size=(2, k, 32, 32, 3)), jnp.float32) for k in (3, 1))
  alpha, mask = (jnp.asarray(rng.uniform(size=(2, k, 32, 32)), jnp.float32) for k in (3, 1))
  distance = jax.jit(texture_distance_from(str(path)))
  found = distance(rendered=rendered, alpha=alpha, image=image, mask=mask)
  assert found.shape == (2, 3)
  params, single = load_perceptual(path), jax.jit(perceptual_distance)
  for k in range(3):
    pair = (rendered[:, k] * alpha[:, k, ..., None], image[:, 0] * mask[:, 0, ..., None])
    np.testing.assert_allclose(found[:, k], single(params, *pair), rtol=1e-5)
  assert len(set(np.asarray(found).ravel().round(5))) == 6


def bowl(size):
  """A barrier field around a disc, [1, size, size]."""
  centres = (2 * np.arange(size) + 1 - size) / size
  radius = np.hypot(centres[None], centres[:, None])
  return jnp.asarray(1 / (1 + np.exp(-10 * (radius - 0.5))), jnp.float32)[None]


def test_dt_matches_the_golden_value(golden_geometry):
  flow = golden_geometry["texture/flow"]
  loss = texture_dt_loss(
    flow=jnp.asarray(flow.reshape(*flow.shape[:2], -1, 2)),
    barrier=jnp.asarray(golden_geometry["texture/dt"][:, 0]),
  )
  np.testing.assert_allclose(loss.mean(), golden_geometry["texture/dt_loss"], rtol=1e-5)


def test_dt_reads_the_pixel_whose_centre_it_hits(rng):
  barrier = rng.uniform(size=(2, 5, 4)).astype(np.float32)
  rows, columns = rng.integers(5, size=(2, 6, 3)), rng.integers(4, size=(2, 6, 3))
  flow = np.stack([(2 * columns + 1 - 4) / 4, (2 * rows + 1 - 5) / 5], axis=-1)
  expected = [np.mean([barrier[b, rows[b], columns[b]]]) for b in range(2)]
  loss = texture_dt_loss(flow=jnp.asarray(flow, jnp.float32), barrier=jnp.asarray(barrier))
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_dt_descent_moves_samples_onto_the_object():
  flow = jnp.asarray([[[[0.6, 0.0]], [[0.0, -0.7]]]])
  grad = jax.grad(lambda x: texture_dt_loss(flow=x, barrier=bowl(16)).sum())(flow)
  assert grad[0, 0, 0, 0] > 0.0
  assert grad[0, 1, 0, 1] < 0.0


def test_dt_leaving_the_image_does_not_pay():
  barrier = jnp.full((1, 8, 8), 0.25)
  far = jnp.asarray([[[[3.0, 0.0], [0.0, -50.0]]]])
  np.testing.assert_allclose(texture_dt_loss(flow=far, barrier=barrier), [1.0])
  # The last half pixel climbs towards the background outside.
  grad = jax.grad(lambda x: texture_dt_loss(flow=x, barrier=barrier).sum())(
    jnp.asarray([[[[0.95, 0.0]]]])
  )
  assert grad[0, 0, 0, 0] > 0.0


@pytest.mark.parametrize("position", [0.0, 1.0, -1.0, 1e6, 0.125])
def test_dt_gradient_is_finite_at_edges_and_on_centres(position):
  flow = jnp.full((1, 2, 3, 2), position)
  grad = jax.grad(lambda x: texture_dt_loss(flow=x, barrier=bowl(16)).sum())(flow)
  assert np.isfinite(grad).all()


def test_dt_another_batch_is_refused():
  with pytest.raises(jaxtyping.TypeCheckError, match="barrier"):
    texture_dt_loss(flow=jnp.zeros((2, 4, 1, 2)), barrier=bowl(8))


B, F, T = 2, 6, 9


@pytest.fixture
def cycle():
  flow_key, centroid_key = jax.random.split(jax.random.key(0))
  return {
    "flow": jax.random.uniform(flow_key, (B, F, T, 2), minval=-1.0),
    "projected_centroids": jax.random.uniform(centroid_key, (B, F, 2), minval=-1.0),
    # 4 of 6, then all.
    "visible": jnp.arange(F)[None] < jnp.array([[4], [F]]),
  }


def test_cycle_matches_the_golden_value(golden_geometry):
  flow, centroids = golden_geometry["cycle/flow"], golden_geometry["cycle/face_coords"]
  visible = np.zeros(centroids.shape[:2], bool)
  for row, ids in zip(visible, golden_geometry["cycle/visible_face_ids_nobg"], strict=True):
    row[ids.astype(int)] = True
  loss = texture_cycle_loss(
    flow=jnp.asarray(flow.reshape(*flow.shape[:2], -1, 2)),
    projected_centroids=jnp.asarray(centroids),
    visible=jnp.asarray(visible),
  )
  np.testing.assert_allclose(loss.mean(), golden_geometry["cycle/loss_nobg"], rtol=1e-5)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_cycle_constant_offset_has_the_closed_form(cycle, transform):
  # Every face misses by (0.3, 0.4): the mean over x, y is 0.125, times visible / F.
  offset = jnp.tile(jnp.array([0.3, 0.4]), (T, 1))
  cycle["flow"] = cycle["projected_centroids"][:, :, None] + offset[None, None]
  np.testing.assert_allclose(
    transform(texture_cycle_loss)(**cycle), [0.125 * 4 / 6, 0.125], rtol=1e-5
  )


def test_cycle_matches_the_loop_it_vectorises(cycle):
  expected = np.zeros(B)
  for b, f in zip(*np.nonzero(cycle["visible"]), strict=True):
    mean_flow = np.asarray(cycle["flow"])[b, f].mean(axis=0)
    expected[b] += np.square(mean_flow - np.asarray(cycle["projected_centroids"])[b, f]).sum() / (
      2 * F
    )
  np.testing.assert_allclose(texture_cycle_loss(**cycle), expected, rtol=1e-5)


def test_cycle_hidden_faces_may_be_nan_and_get_no_gradient(cycle):
  cycle["projected_centroids"] = jnp.where(
    cycle["visible"][..., None], cycle["projected_centroids"], jnp.nan
  )
  grad = jax.grad(lambda x: texture_cycle_loss(**{**cycle, "flow": x}).sum())(cycle["flow"])
  assert np.isfinite(grad).all()
  assert (grad[~cycle["visible"]] == 0.0).all()
  assert (grad[cycle["visible"]] != 0.0).all()


def test_cycle_an_image_without_visible_faces_costs_nothing(cycle):
  cycle["visible"] = jnp.zeros((B, F), bool)
  assert (texture_cycle_loss(**cycle) == 0.0).all()


def test_cycle_projected_centroids_are_a_target(cycle):
  grad = jax.grad(lambda x: texture_cycle_loss(**{**cycle, "projected_centroids": x}).sum())(
    cycle["projected_centroids"]
  )
  assert (grad == 0.0).all()


def test_cycle_face_count_mismatch_is_refused(cycle):
  cycle["projected_centroids"], cycle["visible"] = (
    cycle["projected_centroids"][:, :1],
    cycle["visible"][:, :1],
  )
  with pytest.raises(jaxtyping.TypeCheckError, match="projected_centroids"):
    texture_cycle_loss(**cycle)


def test_correction_a_constant_departure_costs_its_squared_length():
  correction = (
    jnp.tile(jnp.asarray([0.3, -0.4]), (2, 4, 8, 1)) * jnp.asarray([1.0, 2.0])[:, None, None, None]
  )
  np.testing.assert_allclose(flow_correction_loss(correction), [0.25, 1.0], rtol=1e-6)


def test_correction_its_gradient_points_along_the_departure(rng):
  correction = jnp.asarray(rng.normal(size=(1, 4, 8, 2)), jnp.float32)
  grad = jax.grad(lambda c: flow_correction_loss(c)[0])(correction)
  np.testing.assert_allclose(grad, 2.0 * correction / 32, rtol=1e-5)


def test_correction_no_departure_costs_nothing():
  value, grad = jax.value_and_grad(lambda c: flow_correction_loss(c).sum())(jnp.zeros((3, 4, 8, 2)))
  assert value == 0.0 and (np.asarray(grad) == 0.0).all()
