"""draw: every hypothesis, and one textured, known before the silhouettes or after them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.config import RenderConfig
from umr_jax.losses.drawing import choose_rows, draw, project_faces
from umr_jax.render import rasterize, soft_silhouette
from umr_jax.types import Batch, Prediction

B, K, S = 3, 4, 24
SETTINGS = RenderConfig(sigma=1e-3, gamma=1e-2)


@pytest.fixture
def case(topology, rng):
  cameras = np.tile(np.array([0.5, 0.0, 0.1, 0.7071, 0.7071, 0, 0]), (B, K, 1))
  cameras[..., :3] += rng.uniform(0.0, 0.2, (B, K, 3))
  vertices = topology.sphere[None] * rng.uniform(0.7, 1.2, (B, 1, 3))
  faces = project_faces(
    jnp.asarray(vertices, jnp.float32), jnp.asarray(cameras, jnp.float32), topology
  )
  prediction = Prediction(
    half_offsets=jnp.zeros((B, topology.num_half, 3)),
    shape_code=jnp.zeros((B, 4)),
    flow_map=jnp.asarray(rng.uniform(-0.9, 0.9, (B, 8, 16, 2)), jnp.float32),
    cameras=jnp.asarray(cameras, jnp.float32),
    camera_logits=jnp.zeros((B, K)),
  )
  image = jnp.asarray(rng.random((B, S, S, 3)), jnp.float32)
  flat = jnp.zeros((B, S, S))
  batch = Batch(image=image, mask=flat, barrier=flat, index=jnp.arange(B), valid=jnp.ones(B, bool))
  chosen = jnp.array([2, 0, 3])

  def call(faces, flow_map, *, early):
    return draw(
      faces,
      chosen % faces.shape[1] if early else None,
      prediction.replace(flow_map=flow_map),
      batch,
      choose=lambda alpha: chosen,
      topology=topology,
      settings=SETTINGS,
      image_size=S,
    )

  return call, faces, prediction.flow_map, chosen


@pytest.mark.parametrize("early", [True, False])
def test_every_hypothesis_is_drawn_where_it_belongs(case, early):
  call, faces, flow_map, chosen = case
  drawing = call(faces, flow_map, early=early)
  expected = soft_silhouette(faces, image_size=S, sigma=SETTINGS.sigma, dist_eps=SETTINGS.dist_eps)
  np.testing.assert_allclose(drawing.alpha, expected, atol=1e-6)
  np.testing.assert_allclose(
    drawing.fragments.rgba[..., -1], choose_rows(expected, chosen), atol=1e-6
  )


def test_both_ways_give_the_same_picture_and_gradients(case, rng):
  call, faces, flow_map, _ = case
  on_alpha = jnp.asarray(rng.standard_normal((B, K, S, S)), jnp.float32)
  on_color = jnp.asarray(rng.standard_normal((B, S, S, 3)), jnp.float32)

  def total(faces, flow_map, early):
    drawing = call(faces, flow_map, early=early)
    pictures = jnp.sum(on_color * drawing.fragments.rgba[..., :3])
    return jnp.sum(on_alpha * drawing.alpha) + pictures, drawing.fragments.rgba

  both = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)
  results = [both(faces, flow_map, early) for early in (True, False)]
  for early, late in zip(*map(jax.tree.leaves, results), strict=True):
    scale = float(jnp.abs(late).max())
    np.testing.assert_allclose(early, late, atol=2e-5 * scale)


def test_colour_teaches_the_flow_and_not_the_geometry(case):
  call, faces, flow_map, _ = case
  for early in (True, False):

    def total(faces, flow_map, early=early):
      return jnp.sum(call(faces, flow_map, early=early).fragments.rgba[..., :3] ** 2)

    on_faces, on_flow = jax.grad(total, argnums=(0, 1))(faces, flow_map)
    np.testing.assert_array_equal(on_faces, 0.0)
    assert np.abs(on_flow).max() > 0.0


def test_a_single_hypothesis_is_rasterized_once(case):
  """No loop over rows but those of one `rasterize`."""
  call, faces, flow_map, _ = case

  def loops(function, *arguments):
    return str(jax.make_jaxpr(function)(*arguments)).count("while[")

  one = faces[:, :1]
  texels = jnp.ones((B, one.shape[2], 9, 3))
  alone = loops(lambda f: rasterize(f[:, 0], texels, image_size=S, sigma=1e-3), one)
  assert alone > 0
  assert loops(lambda f: call(f, flow_map, early=True).fragments.rgba, one) == alone
