"""The training step: it learns, it is one function of its arguments, devices do not matter."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy

from tests.models.lite0 import random_lite0
from tests.tiny import plain_loss, tiny_config
from umr_jax.config.build import with_settings
from umr_jax.data.batching import train_batch
from umr_jax.data.dataset import load_dataset
from umr_jax.data.transforms import CropSpec
from umr_jax.geometry.camera import Camera, project_faces
from umr_jax.geometry.symmetry import symmetrize
from umr_jax.geometry.voxels import Mesh, solid_iou
from umr_jax.init.silhouettes import unit_sphere
from umr_jax.init.state import bare_em_state
from umr_jax.losses.spec import ObjectiveSpec
from umr_jax.models.camera_heads import upright_rotation
from umr_jax.models.infer import build_net, build_topology_from
from umr_jax.models.initialize import init_variables, initialize
from umr_jax.render import RenderSettings
from umr_jax.train import parallel
from umr_jax.train.augment import Strengths
from umr_jax.train.step import latent_noise, make_encode, make_train_step, new_train_state
from umr_jax.types import Batch


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
  config = tiny_config(tmp_path_factory.mktemp("cache"))
  topology = build_topology_from(config)
  net = build_net(config, hypotheses=2)
  split = load_dataset(config.data).splits["train"]
  batch = train_batch(split, CropSpec(image_size=64, padding=0.05), step=0, seed=0, batch_size=4)
  params, stats = initialize(net, image_size=64, seed=0)
  return config, topology, net, batch, params, stats


def build(setting, optimizer, **changes):
  config, topology, net, _, params, stats = setting
  step = make_train_step(
    net,
    optimizer,
    objective=ObjectiveSpec.from_config(config, topology),
    **changes,
  )
  state = new_train_state(params, stats, optimizer, step=0)
  return step, state, bare_em_state(unit_sphere(topology))


def run(function, state, em_state, batch, steps, *, key=0):
  state, em_state = parallel.replicate(state), parallel.replicate(em_state)
  losses = []
  for _ in range(steps):
    state, metrics = function(state, em_state, parallel.shard_batch(batch), jax.random.key(key))
    losses.append(float(metrics["loss/total"][0]))
  parallel.assert_replicated(state)
  return parallel.unreplicate(state), losses


@pytest.fixture(scope="module")
def sgd(setting):
  """A step by SGD with its states, compiled once, and the batch of two images a device for it."""
  step, state, em_state = build(setting, optax.sgd(1e-2))
  # Other ones on each device: BatchNorm is per device, and makes all of a single image equal.
  order = np.array([0, 1, 2, 3, 0, 2, 1, 3])
  batch = jax.tree.map(lambda rows: rows[order], setting[3])
  return step, parallel.parallel_step(step, donate=False), state, em_state, batch


@pytest.mark.slow
def test_the_loss_falls(setting):
  step, state, em_state = build(setting, optax.adam(2e-3))
  # Three images a device: BatchNorm over one image's last map hides what distinguishes images.
  split = load_dataset(setting[0].data).splits["train"]
  batch = train_batch(split, CropSpec(image_size=64, padding=0.05), step=0, seed=0, batch_size=12)
  new, losses = run(parallel.parallel_step(step, donate=False), state, em_state, batch, 30)
  assert np.mean(losses[-5:]) < 0.95 * losses[0]
  assert int(new.step) == 30


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_a_template_that_is_right_stays_right_while_cameras_are_learned(setting):
  """Images of one flat solid under known cameras: an untrained network leaves its shape alone."""
  config, topology, *_ = setting
  net = build_net(config, hypotheses=4)
  params, stats = initialize(net, image_size=64, seed=0)
  true = unit_sphere(topology) * np.array([0.9, 0.5, 0.3], np.float32)
  count = 16
  rotations = upright_rotation(
    jnp.arange(count) * 360.0 / count, jnp.full(count, 20.0), jnp.zeros(count)
  )
  cameras = Camera(jnp.full(count, 0.8), jnp.zeros((count, 2)), rotations).pack()
  solids = jnp.broadcast_to(
    symmetrize(true, num_center=topology.num_center), (count, topology.num_vertices, 3)
  )
  corners = project_faces(solids, cameras, topology.faces)
  masks = RenderSettings(image_size=64, sigma=1e-4).soft_silhouette(corners)
  depth = jnp.linspace(0.2, 0.8, 64)[None, :, None, None]
  batch = Batch(
    image=1.0 - masks[..., None] * jnp.broadcast_to(depth, (count, 64, 64, 3)),
    mask=masks,
    barrier=jnp.zeros_like(masks),
    index=jnp.arange(count, dtype=jnp.int32),
    valid=jnp.ones(count, bool),
    target_camera=cameras,
  )
  weights = plain_loss(mask=9.0, target_camera=5.0, camera_posterior=2.0, shape_variance=5.0)
  objective = dataclasses.replace(
    ObjectiveSpec.from_config(config, topology),
    weights=weights,
    render=RenderSettings(image_size=32, sigma=1e-4),
  )
  optimizer = optax.adam(1e-3)
  step = make_train_step(net, optimizer, objective=objective)
  state = new_train_state(params, stats, optimizer, step=0)
  em_state = bare_em_state(true)
  compiled = parallel.parallel_step(step, donate=False)
  new, _ = run(compiled, state, em_state, batch, 60)
  predicted, _ = net.apply(
    {"params": new.params, **new.collections}, batch.image, train=True, mutable=["batch_stats"]
  )
  moved = true + np.mean(predicted.half_offsets, axis=0)  # what an M-step takes
  meshes = [
    Mesh(np.asarray(symmetrize(half, num_center=topology.num_center)), np.asarray(topology.faces))
    for half in (true, moved)
  ]
  assert solid_iou(*meshes) > 0.96  # 0.972; rendered under the network's own cameras: 0.948


@pytest.mark.slow
def test_a_step_is_a_function_of_its_arguments(sgd):
  _, compiled, state, em_state, batch = sgd
  (a, _), (b, _), (c, _) = (run(compiled, state, em_state, batch, 2, key=k) for k in (0, 0, 1))
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(x, y)
  differ = [(x != y).any() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(c), strict=True)]
  assert any(differ)


@pytest.mark.slow
def test_the_network_is_given_augmented_images(setting, sgd):
  _, plain, state, em_state, batch = sgd
  changed = Strengths(color=0.5)  # test_augment.py has all of them
  step, *_ = build(setting, optax.sgd(1e-2), augment=changed)
  losses = [
    run(compiled, state, em_state, batch, 1)[1][0]
    for compiled in (plain, parallel.parallel_step(step, donate=False))
  ]
  assert abs(losses[0] - losses[1]) > 1e-4


@pytest.mark.slow
def test_a_batch_that_was_encoded_before_gives_the_same_step(tmp_path, setting):
  weights = tmp_path / "lite0.safetensors"
  safetensors.numpy.save_file(random_lite0(), weights)
  model = {"encoder": "efficientnet", "encoder_weights": str(weights), "norm": "group"}
  config = with_settings(setting[0], {f"model.{name}": value for name, value in model.items()})
  topology, net = setting[1], build_net(config, hypotheses=2)
  params, stats, frozen = init_variables(net, config, seed=0)
  optimizer, strengths = optax.sgd(1e-2), Strengths(color=0.5, rotation=10.0)
  objective = ObjectiveSpec.from_config(config, topology)
  step = make_train_step(net, optimizer, objective=objective, augment=strengths)
  state = new_train_state(params, stats, optimizer, step=3, frozen=frozen)
  batch, key = setting[3].replace(parts=None), jax.random.key(0)
  one_device = jax.pmap(step, axis_name=parallel.AXIS, in_axes=(None, None, 0, None))
  encode = jax.jit(make_encode(strengths))
  encoded = encode(frozen, batch, jax.random.fold_in(key, 3))
  losses = [
    float(one_device(state, bare_em_state(unit_sphere(topology)), rows, key)[1]["loss/total"][0])
    for rows in (jax.tree.map(lambda leaf: np.asarray(leaf)[None], b) for b in (batch, encoded))
  ]
  np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def test_noise_belongs_to_the_image():
  key = jax.random.key(3)
  all_rows = latent_noise(jnp.arange(8), key, size=5)
  some = latent_noise(jnp.array([6, 2]), key, size=5)
  np.testing.assert_array_equal(some, all_rows[jnp.array([6, 2])])
  assert len(np.unique(np.asarray(all_rows))) == 40


@pytest.mark.slow
def test_gradients_of_four_devices_are_those_of_the_mean_over_their_shares(sgd):
  """SGD, so that a wrong scale cannot hide: the update is the mean of the four shares' updates."""
  step, compiled, state, em_state, shared = sgd
  together, _ = run(compiled, state, em_state, shared, 1)
  alone_step = jax.pmap(step, axis_name=parallel.AXIS, in_axes=(0, 0, 0, None))
  first = jax.tree.map(lambda leaf: np.asarray(leaf)[None], (state, em_state))
  alone = []
  for device in range(4):
    pair = jax.tree.map(lambda rows, at=2 * device: rows[at : at + 2][None], shared)
    alone.append(jax.tree.leaves(alone_step(*first, pair, jax.random.key(0))[0].params))
  telling = []
  for i, (x, start) in enumerate(
    zip(jax.tree.leaves(together.params), jax.tree.leaves(state.params), strict=True)
  ):
    moves = np.stack([np.asarray(leaves[i][0]) - start for leaves in alone])
    scale = np.abs(moves).max()
    telling.append(scale > 1e-5)
    if telling[-1]:
      np.testing.assert_allclose(x - start, moves.mean(axis=0), atol=1e-3 * scale + 1e-7)
    else:  # What a normalization takes out again has no gradient but rounding, which has no mean.
      assert np.abs(x - start).max() <= scale + 1e-7
  assert np.mean(telling) > 0.6


@pytest.mark.slow
def test_pmap_and_shard_map_train_the_same(sgd):
  """On four devices: the same parameters after two steps, metrics included."""
  step, mapped, state, em_state, batch = sgd
  ends, losses = [], []
  for compiled in (mapped, parallel.parallel_step(step, donate=False, transform="shard_map")):
    end, loss = run(compiled, state, em_state, batch, 2)
    ends.append(end)
    losses.append(loss)
  np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)
  for a, b in zip(*map(jax.tree.leaves, ends), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_the_template_gets_no_gradient_and_is_not_a_parameter(setting):
  _, state, em_state = build(setting, optax.sgd(1.0))
  shapes = [np.shape(leaf) for leaf in jax.tree.leaves(state.params)]
  assert np.shape(em_state.template.half_vertices) not in shapes
  assert dataclasses.is_dataclass(em_state)
