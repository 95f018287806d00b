"""From a config to reconstructions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import plain
from umr_jax.config.settings import ModelConfig, to_dict
from umr_jax.models.assemble import upsample_flow
from umr_jax.models.checkpoint import Snapshot
from umr_jax.models.flow import camera_flow, clamp_to_mask
from umr_jax.models.infer import build_net, build_topology_from, infer, model_of, texture_flow
from umr_jax.models.initialize import initialize
from umr_jax.types import EMState, Model, Template

CONFIG = plain(
  geometry={"level": 1, "texels_per_side": 2, "uv_height": 16}, model={"encoder_width": 8}
)


@pytest.fixture(scope="module")
def model():
  net, topology = build_net(CONFIG, hypotheses=4), build_topology_from(CONFIG)
  params, stats = initialize(net, image_size=64, seed=0)
  template = Template(half_vertices=jnp.asarray(topology.sphere[: topology.num_half]))
  return Model(network=net, topology=topology, params=params, batch_stats=stats, template=template)


reconstruct = jax.jit(infer)


@pytest.fixture
def images(rng):
  return jnp.asarray(rng.random((3, 64, 64, 3)), jnp.float32)


def test_shapes_follow_the_config(model, images):
  result = reconstruct(model, images)
  assert result.vertices.shape == (3, 42, 3)
  assert result.cameras.shape == (3, 4, 7)
  assert result.camera_probs.shape == (3, 4)
  assert result.camera.shape == (3, 7)
  assert result.flow_map.shape == (3, 16, 32, 2)
  assert result.shape_code.shape == (3, ModelConfig.code_size)
  np.testing.assert_allclose(result.camera_probs.sum(axis=-1), 1.0, rtol=1e-6)


def test_the_camera_is_the_most_probable_one(model, images):
  params = model.params
  logit = {**params["camera_heads"]["logit"], "bias": np.array([[0.0], [1.0], [5.0], [2.0]])}
  logit = jax.tree.map(lambda x: np.asarray(x, np.float32), logit)
  params = {**params, "camera_heads": {**params["camera_heads"], "logit": logit}}
  result = reconstruct(model.replace(params=params), images)
  np.testing.assert_array_equal(result.camera, result.cameras[:, 2])


def test_a_new_network_s_shapes_are_the_template(model, images):
  result = reconstruct(model, images)
  sphere = build_topology_from(CONFIG).sphere
  np.testing.assert_allclose(
    result.vertices, np.broadcast_to(sphere, result.vertices.shape), atol=1e-2
  )


def test_an_image_s_result_does_not_depend_on_its_batch(model, images):
  whole, alone = reconstruct(model, images), reconstruct(model, images[1:2])
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1:2], b, atol=1e-5), whole, alone)


def test_the_texture_stem_follows_the_config():
  dense = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, texture_stem="dense"))
  assert build_net(dense, hypotheses=1).texture_stem == "dense"


def test_a_flow_from_the_camera_is_seen_by_the_most_probable_one(model, images):
  topology = model.topology
  free, found = reconstruct(model, images), reconstruct(model.replace(flow="projected"), images)
  seen = camera_flow(found.vertices, found.camera, topology, uv_height=16)
  np.testing.assert_allclose(found.flow_map, free.flow_map + seen, atol=1e-5)
  np.testing.assert_allclose(found.vertices, free.vertices, atol=1e-6)
  # A finer texture knows what the camera sees at every pixel, and interpolates the rest.
  np.testing.assert_allclose(texture_flow(found, topology, height=16), found.flow_map, atol=1e-5)
  fine = camera_flow(found.vertices, found.camera, topology, uv_height=32)
  wanted = fine + upsample_flow(free.flow_map, 32)
  np.testing.assert_allclose(texture_flow(found, topology, height=32), wanted, atol=1e-5)
  np.testing.assert_array_equal(
    texture_flow(free, topology, height=32), upsample_flow(free.flow_map, 32)
  )
  # A mesh that was fitted to a silhouette needs no correction, and looks at nothing else.
  mask = jnp.zeros((len(images), 8, 8)).at[:, 3:6, 3:6].set(1.0)
  fitted = dataclasses.replace(found, mask=mask, optimized=True)
  np.testing.assert_allclose(
    texture_flow(fitted, topology, height=32), clamp_to_mask(fine, mask), atol=1e-6
  )


@pytest.mark.parametrize(("start", "index", "heads"), [(4, 0, 2), (3, 1, 8)])
def test_a_checkpoint_s_network_is_that_of_its_round(model, start, index, heads):
  """At the boundary of two rounds it is still the earlier one's."""
  config = dataclasses.replace(
    CONFIG,
    em=dataclasses.replace(CONFIG.em, rounds=2, hypotheses=(2, 8)),
    loss=dataclasses.replace(CONFIG.loss, texture_cameras="one"),
    model=dataclasses.replace(CONFIG.model, flow="projected"),
  )
  state = EMState(round=np.int32(1), round_start=np.int32(start), template=model.template)
  snapshot = Snapshot(to_dict(config), model.params, model.batch_stats, {}, state, step=4)
  trained = model_of(snapshot)
  assert (trained.round, trained.step, trained.config) == (index, 4, config)
  assert trained.model.network.hypotheses == heads
  assert trained.model.template is model.template and trained.model.flow == "projected"


def test_a_model_is_a_pytree_of_its_arrays_and_compiles_once(model, images):
  traced = []

  @jax.jit
  def count(model, images):
    traced.append(model)
    return infer(model, images)

  count(model, images)
  count(jax.tree.map(lambda leaf: leaf + 0, model), images)
  assert len(traced) == 1
  assert set(model.variables) == {"params", "batch_stats"}
  assert set(model.replace(frozen={"a": np.ones(1)}).variables) == {*model.variables, "frozen"}
