"""From a config to reconstructions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import plain
from umr_jax.models.assemble import finer_flow
from umr_jax.models.clamped_flow import move_inside
from umr_jax.models.infer import build_net, build_topology_from, fine_flow, make_infer
from umr_jax.models.initialize import initialize
from umr_jax.models.projected_flow import camera_flow
from umr_jax.types import Template

CONFIG = plain(
  geometry={"level": 1, "texels_per_side": 2, "uv_height": 16}, model={"encoder_width": 8}
)


@pytest.fixture(scope="module")
def parts():
  net, topology = build_net(CONFIG, hypotheses=4), build_topology_from(CONFIG)
  params, stats = initialize(net, image_size=64, seed=0)
  template = Template(half_vertices=jnp.asarray(topology.sphere[: topology.num_half]))
  return jax.jit(make_infer(net, topology)), params, stats, template


@pytest.fixture
def images(rng):
  return jnp.asarray(rng.random((3, 64, 64, 3)), jnp.float32)


def test_shapes_follow_the_config(parts, images):
  infer, *arguments = parts
  result = infer(*arguments, images)
  assert result.vertices.shape == (3, 42, 3)
  assert result.cameras.shape == (3, 4, 7)
  assert result.camera_probs.shape == (3, 4)
  assert result.camera.shape == (3, 7)
  assert result.flow_map.shape == (3, 16, 32, 2)
  assert result.shape_code.shape == (3, 12)
  np.testing.assert_allclose(result.camera_probs.sum(axis=-1), 1.0, rtol=1e-6)


def test_the_camera_is_the_most_probable_one(parts, images):
  infer, params, stats, template = parts
  logit = {**params["camera_heads"]["logit"], "bias": np.array([[0.0], [1.0], [5.0], [2.0]])}
  logit = jax.tree.map(lambda x: np.asarray(x, np.float32), logit)
  params = {**params, "camera_heads": {**params["camera_heads"], "logit": logit}}
  result = infer(params, stats, template, images)
  np.testing.assert_array_equal(result.camera, result.cameras[:, 2])


def test_a_new_network_s_shapes_are_the_template(parts, images):
  infer, params, stats, template = parts
  result = infer(params, stats, template, images)
  sphere = build_topology_from(CONFIG).sphere
  np.testing.assert_allclose(
    result.vertices, np.broadcast_to(sphere, result.vertices.shape), atol=1e-2
  )


def test_an_image_s_result_does_not_depend_on_its_batch(parts, images):
  infer, *arguments = parts
  whole, alone = infer(*arguments, images), infer(*arguments, images[1:2])
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1:2], b, atol=1e-5), whole, alone)


def test_the_texture_stem_follows_the_config():
  dense = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, texture_stem="dense"))
  assert build_net(dense, hypotheses=1).texture_stem == "dense"


def test_a_flow_from_the_camera_is_seen_by_the_most_probable_one(parts, images):
  infer, *arguments = parts
  model = dataclasses.replace(CONFIG.model, flow="projected")
  topology = build_topology_from(CONFIG)
  net = build_net(dataclasses.replace(CONFIG, model=model), hypotheses=4)
  free, found = infer(*arguments, images), jax.jit(make_infer(net, topology))(*arguments, images)
  seen = camera_flow(found.vertices, found.camera, topology, uv_height=16)
  np.testing.assert_allclose(found.flow_map, free.flow_map + seen, atol=1e-5)
  np.testing.assert_allclose(found.vertices, free.vertices, atol=1e-6)
  # A finer texture knows what the camera sees at every pixel, and interpolates the rest.
  np.testing.assert_allclose(fine_flow(found, topology, height=16), found.flow_map, atol=1e-5)
  fine = camera_flow(found.vertices, found.camera, topology, uv_height=32)
  wanted = fine + finer_flow(free.flow_map, 32)
  np.testing.assert_allclose(fine_flow(found, topology, height=32), wanted, atol=1e-5)
  np.testing.assert_array_equal(fine_flow(free, topology, height=32), finer_flow(free.flow_map, 32))
  # A mesh that was fitted to a silhouette needs no correction, and looks at nothing else.
  mask = jnp.zeros((len(images), 8, 8)).at[:, 3:6, 3:6].set(1.0)
  fitted = dataclasses.replace(found, mask=mask, refined=True)
  np.testing.assert_allclose(
    fine_flow(fitted, topology, height=32), move_inside(fine, mask), atol=1e-6
  )
