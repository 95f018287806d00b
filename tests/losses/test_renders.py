"""Renders: every hypothesis, and one textured, whose silhouette may be rendered already."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import plain_loss
from umr_jax.geometry.sampling import choose_rows
from umr_jax.losses.renders import faces_in_view, render_hypotheses
from umr_jax.losses.spec import ObjectiveSpec
from umr_jax.models.flow import camera_flow
from umr_jax.render import RenderSettings, rasterize
from umr_jax.types import Prediction

B, K, S = 3, 4, 24
SETTINGS = RenderSettings(image_size=S, sigma=1e-3, gamma=1e-2)


@pytest.fixture
def case(topology, rng):
  cameras = np.tile(np.array([0.5, 0.0, 0.1, 0.7071, 0.7071, 0, 0]), (B, K, 1))
  cameras[..., :3] += rng.uniform(0.0, 0.2, (B, K, 3))
  vertices = topology.sphere[None] * rng.uniform(0.7, 1.2, (B, 1, 3))
  vertices = jnp.asarray(vertices, jnp.float32)
  prediction = Prediction(
    half_offsets=jnp.zeros((B, topology.num_half, 3)),
    shape_code=jnp.zeros((B, 4)),
    flow_map=jnp.asarray(rng.uniform(-0.9, 0.9, (B, 8, 16, 2)), jnp.float32),
    cameras=jnp.asarray(cameras, jnp.float32),
    camera_logits=jnp.zeros((B, K)),
  )
  image = jnp.asarray(rng.random((B, S, S, 3)), jnp.float32)
  chosen = jnp.array([2, 0, 3])

  def call(
    vertices, flow_map, *, early, cameras=prediction.cameras, parts=None, flow="free", **weights
  ):
    alpha = None
    if not early:
      alpha = SETTINGS.soft_silhouette(faces_in_view(vertices, cameras, topology))
    return render_hypotheses(
      vertices,
      cameras,
      chosen % cameras.shape[1],
      alpha=alpha,
      flow_map=flow_map,
      image=image,
      part_texels=parts,
      spec=ObjectiveSpec(
        topology=topology, weights=plain_loss(**weights), render=SETTINGS, flow=flow
      ),
    )

  return call, vertices, prediction, chosen


@pytest.mark.parametrize("early", [True, False])
def test_every_hypothesis_is_rendered_where_it_belongs(case, topology, early):
  call, vertices, prediction, chosen = case
  renders = call(vertices, prediction.flow_map, early=early)
  faces = faces_in_view(vertices, prediction.cameras, topology)
  expected = SETTINGS.soft_silhouette(faces)
  np.testing.assert_allclose(renders.alpha, expected, atol=1e-6)
  np.testing.assert_allclose(
    renders.fragments.rgba[..., -1], choose_rows(expected, chosen), atol=1e-6
  )


def test_both_ways_give_the_same_image_and_gradients(case, rng):
  call, vertices, prediction, _ = case
  on_alpha = jnp.asarray(rng.standard_normal((B, K, S, S)), jnp.float32)
  on_color = jnp.asarray(rng.standard_normal((B, S, S, 3)), jnp.float32)

  def total(vertices, flow_map, early):
    renders = call(vertices, flow_map, early=early)
    images = jnp.sum(on_color * renders.fragments.rgba[..., :3])
    return jnp.sum(on_alpha * renders.alpha) + images, renders.fragments.rgba

  both = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)
  results = [both(vertices, prediction.flow_map, early) for early in (True, False)]
  for early, late in zip(*map(jax.tree.leaves, results), strict=True):
    scale = float(jnp.abs(late).max())
    np.testing.assert_allclose(early, late, atol=2e-5 * scale)


@pytest.mark.parametrize("early", [True, False])
def test_colour_backpropagates_to_the_flow_and_parts_to_the_shape_alone(case, rng, topology, early):
  call, vertices, prediction, _ = case
  parts = jnp.asarray(rng.random((topology.num_faces, 9, 2)), jnp.float32)

  def total(vertices, cameras, flow_map, channels):
    renders = call(vertices, flow_map, cameras=cameras, early=early, parts=parts)
    return jnp.sum(renders.fragments.rgba[..., channels] ** 2)

  gradients = jax.grad(total, argnums=(0, 1, 2))
  arguments = (vertices, prediction.cameras, prediction.flow_map)
  on_shape, on_cameras, on_flow = gradients(*arguments, slice(0, 3))
  np.testing.assert_array_equal(on_shape, 0.0)
  np.testing.assert_array_equal(on_cameras, 0.0)
  assert np.abs(on_flow).max() > 0.0
  on_shape, on_cameras, on_flow = gradients(*arguments, slice(3, 5))
  assert np.isfinite(on_shape).all() and np.abs(on_shape).max() > 0.0
  np.testing.assert_array_equal(on_cameras, 0.0)
  np.testing.assert_array_equal(on_flow, 0.0)


def test_a_single_hypothesis_is_rasterized_once(case, topology):
  """No loop over rows but those of one `rasterize`."""
  call, vertices, prediction, _ = case

  def loops(function, *arguments):
    return str(jax.make_jaxpr(function)(*arguments)).count("while[")

  one = prediction.cameras[:, :1]
  texels = jnp.ones((B, topology.num_faces, 9, 3))
  faces = faces_in_view(vertices, one, topology)[:, 0]
  alone = loops(lambda f: rasterize(f, texels, image_size=S, sigma=1e-3), faces)
  assert alone > 0

  def render(v):
    return call(v, prediction.flow_map, cameras=one, early=True).fragments.rgba

  assert loops(render, vertices) == alone


@pytest.mark.parametrize("early", [True, False])
def test_colours_of_every_hypothesis_are_the_chosen_ones_where_it_is_chosen(case, rng, early):
  call, vertices, prediction, chosen = case
  one = call(vertices, prediction.flow_map, early=True)
  every = call(vertices, prediction.flow_map, early=early, texture_cameras="all")
  assert one.colors is None and every.colors.shape == (B, K, S, S, 3)
  np.testing.assert_allclose(every.alpha, one.alpha, atol=1e-6)
  for got, expected in zip(every.fragments, one.fragments, strict=True):
    np.testing.assert_allclose(got, expected, atol=1e-5)
  np.testing.assert_allclose(
    choose_rows(every.colors, chosen), one.fragments.rgba[..., :3], atol=1e-5
  )


@pytest.mark.parametrize("early", [True, False])
def test_a_projected_flow_starts_at_the_chosen_hypothesis(case, topology, early):
  call, vertices, prediction, chosen = case
  camera = choose_rows(prediction.cameras, chosen)
  residual = prediction.flow_map * 0.1
  seen = camera_flow(vertices, camera, topology, uv_height=residual.shape[1])
  renders = call(vertices, residual, early=early, flow="projected")
  expected = call(vertices, seen + residual, early=early)
  for found, wanted in zip(*map(jax.tree.leaves, (vars(renders), vars(expected))), strict=True):
    np.testing.assert_allclose(found, wanted, atol=1e-6)
  assert np.abs(renders.flow - call(vertices, residual, early=early).flow).max() > 0.1


def test_a_projected_flow_needs_one_camera(case):
  call, vertices, prediction, _ = case
  with pytest.raises(ValueError, match="texture_cameras"):
    call(vertices, prediction.flow_map, early=False, flow="projected", texture_cameras="all")
