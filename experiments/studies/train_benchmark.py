"""Where the time of a training step goes, and how much memory it takes."""

import dataclasses
import pathlib
import resource
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jaxtyping import PRNGKeyArray, PyTree

from experiments.studies.render_benchmark import Line, Timed, interleaved, surroundings
from umr_jax.config.settings import Config
from umr_jax.data.transforms import barrier
from umr_jax.em.round import make_round
from umr_jax.geometry.uv import uv_directions
from umr_jax.init.pose_search import CROP_SIZE, make_views, score_views, template_vertices
from umr_jax.init.silhouettes import unit_sphere
from umr_jax.init.state import bare_em_state
from umr_jax.losses.objective import total_loss
from umr_jax.losses.renders import render_hypotheses
from umr_jax.losses.spec import ObjectiveSpec
from umr_jax.models.assemble import assemble_vertices, part_texels, with_canonical_uv
from umr_jax.models.discriminator import make_discriminator
from umr_jax.models.infer import build_net
from umr_jax.models.perceptual import alexnet_shapes
from umr_jax.models.umr_net import UMRNet
from umr_jax.train import parallel
from umr_jax.types import Batch, EMState, Prediction, Topology, TrainState

_PARTS = 4


def made_up_batch(config: Config, *, image_size: int) -> Batch:
  """Ellipses on noise in quarters as parts; with target cameras where the objective has them.

  Args:
    config: of the run.
    image_size: pixels a side.
  """
  rng = np.random.default_rng(0)
  count, size = config.train.batch_size, image_size
  y, x = (np.mgrid[:size, :size] + 0.5) * 2.0 / size - 1.0
  widths = rng.uniform(0.4, 0.9, (2, count, 1, 1))
  masks = ((x / widths[0]) ** 2 + (y / widths[1]) ** 2 < 1.0).astype(np.float32)
  quarter = np.eye(_PARTS)[(x > 0) * 2 + (y > 0)]
  shown = masks[..., None] * quarter[None]
  parts = np.concatenate([1.0 - masks[..., None], shown], axis=-1).astype(np.float32)
  cameras = np.tile(np.array([0.7, 0.0, 0.0, 0.7071, 0.7071, 0.0, 0.0], np.float32), (count, 1))
  return Batch(
    image=rng.random((count, size, size, 3)).astype(np.float32),
    mask=masks,
    barrier=np.stack([barrier(mask) for mask in masks]),
    index=np.arange(count, dtype=np.int32),
    valid=np.ones(count, bool),
    parts=parts if config.semantic else None,
    target_camera=cameras if config.loss.target_camera else None,
  )


def made_up_state(config: Config, topology: Topology) -> EMState:
  """An ellipsoid, and for semantic terms a canonical map of four parts.

  Args:
    config: of the run.
    topology: the mesh.
  """
  state = bare_em_state(unit_sphere(topology) * np.array([0.9, 0.4, 0.5], np.float32))
  if not config.semantic:
    return state
  x, _, z = np.moveaxis(uv_directions(config.geometry.uv_height), -1, 0)
  labels = 1 + (x > 0) * 2 + (z < 0)
  canonical = np.eye(_PARTS + 1, dtype=np.float32)[labels]
  return with_canonical_uv(state, canonical, topology=topology)


def with_random_weights(config: Config, folder: pathlib.Path) -> Config:
  """The config with random numbers where it names published weights.

  A step does the same work with them and needs as much memory, but no file from elsewhere. An
  EfficientNet is the package's.

  Args:
    config: of the run.
    folder: where a file in AlexNet's layout is written if the config has a perceptual distance. It
      is read when the step is built.
  """
  model = dataclasses.replace(config.model, encoder_weights="none")
  loss = config.loss
  if loss.perceptual_weights != "none":
    path = folder / "alexnet.safetensors"
    safetensors.numpy.save_file(random_alexnet(), path)
    loss = dataclasses.replace(loss, perceptual_weights=str(path))
  return dataclasses.replace(config, model=model, loss=loss)


def random_alexnet() -> dict[str, np.ndarray]:
  """Convolutions in the layout of torchvision's AlexNet, as He et al. 2015 start theirs."""
  rng = np.random.default_rng(0)
  tensors = {}
  for name, shape in alexnet_shapes().items():
    deviation = np.sqrt(2.0 / np.prod(shape[1:])) if len(shape) > 1 else 0.0  # biases are 0
    tensors[name] = rng.normal(0.0, deviation, shape).astype(np.float32)
  return tensors


def measure_step(config: Config, *, round_index: int, repeats: int) -> Line:
  """Times one training step and its stages, on made-up data.

  Args:
    config: of the run; its data are not read.
    round_index: the round whose network is timed.
    repeats: of each stage, in turns.

  Returns:
    Median milliseconds of the network's forward pass and of its gradient; of everything that is
    rendered, likewise; of the objective's gradient on the prediction (rendering included); of the
    whole step; with a frozen encoder, of a step whose batch is replayed (`train.replay`); with
    target cameras, of a pose search for a batch; images a second, the process's
    peak resident size and, where the backend reports it, the device's peak memory, both in MB; and
    whether the texture distance is the perceptual one.
  """
  compiled = make_round(config, index=round_index)
  config, topology = config.at_round(round_index), compiled.topology
  net = build_net(config, hypotheses=config.hypotheses(round_index))
  batch = made_up_batch(config, image_size=config.data.image_size)
  em_state = made_up_state(config, topology)
  train_state = compiled.init_train_state(0)
  stages = _stages(config, topology, net, train_state, em_state, batch)
  state, held = parallel.replicate(train_state), parallel.replicate(em_state)
  sharded, key = parallel.shard_batch(batch), jax.random.key(0)

  def step(batch: Batch = sharded) -> object:
    nonlocal state
    state, metrics = compiled.train_step(state, held, batch, key)
    return metrics

  if compiled.encode is not None:
    frozen = parallel.replicate(train_state.frozen)
    encoded = jax.device_get(compiled.encode(frozen, sharded, key))
    stages["replayed"] = lambda: step(encoded)
  if config.loss.target_camera:
    views = make_views(
      topology, elevation=config.model.camera_elevation, roll=config.model.camera_roll
    )
    views = jax.jit(views)(template_vertices(em_state, topology), em_state.canonical_uv)
    searched = jax.tree.map(jnp.asarray, made_up_batch(config, image_size=CROP_SIZE))
    find = jax.jit(score_views)
    stages["search"] = lambda: find(views, searched)
  times = interleaved({**stages, "step": step}, repeats)
  return {
    "case": f"round{round_index}",
    "image_size": config.data.image_size,
    "render_size": config.render_size,
    "batch": config.train.batch_size,
    "hypotheses": config.hypotheses(round_index),
    "vertices": topology.num_vertices,
    "perceptual": config.loss.perceptual_weights != "none",
    **{f"{name}_ms": round(value, 1) for name, value in times.items()},
    "images_per_s": round(1e3 * config.train.batch_size / times["step"], 1),
    **surroundings(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss),
  }


def _stages(
  config: Config,
  topology: Topology,
  net: UMRNet,
  train_state: TrainState,
  em_state: EMState,
  batch: Batch,
) -> dict[str, Timed]:
  """The stages that can be timed alone.

  Arrays are arguments of what is jitted, as in a training step: a program that closes over them
  takes minutes to compile, since XLA folds constants.
  """
  on_device, held = jax.tree.map(jnp.asarray, (batch, em_state))
  params, stats = jax.tree.map(jnp.asarray, (train_state.params, train_state.collections))
  key = jax.random.key(0)
  texels = None
  if config.loss.part_probability:
    texels = part_texels(jnp.asarray(em_state.canonical_uv), topology)
  noise = None
  if config.model.sample_code:
    noise = jax.random.normal(key, (len(batch.index), config.model.code_size))

  def predict(params: PyTree, stats: PyTree, batch: Batch) -> Prediction:
    variables = {"params": params, **stats}
    return net.apply(variables, batch.image, train=True, noise=noise, mutable=["batch_stats"])[0]

  spec = ObjectiveSpec.from_config(config, topology)
  rendered, losses = _rendered(spec), _losses(spec)
  forward, render_forward = jax.jit(predict), jax.jit(rendered)
  backward = jax.jit(jax.grad(lambda *inputs: _sum_of_squares(predict(*inputs))))
  render_backward, loss_backward = jax.jit(jax.grad(rendered)), jax.jit(jax.grad(losses))
  prediction = forward(params, stats, on_device)
  return {
    "network": lambda: forward(params, stats, on_device),
    "network_gradient": lambda: backward(params, stats, on_device),
    "rendering": lambda: render_forward(prediction, held, texels, on_device),
    "rendering_gradient": lambda: render_backward(prediction, held, texels, on_device),
    "losses_gradient": lambda: loss_backward(
      prediction, held, on_device, key, train_state.discriminator
    ),
  }


def _sum_of_squares(tree: PyTree) -> jax.Array:
  return sum((jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)), jnp.float32(0.0))


def _rendered(spec: ObjectiveSpec) -> Callable[..., jax.Array]:
  """The sum of squares of all images that the losses render.

  It is a function of a prediction, the state of EM, the texels of parts, and a batch.
  """

  def rendered(
    prediction: Prediction, held: EMState, texels: jax.Array | None, batch: Batch
  ) -> jax.Array:
    vertices = assemble_vertices(prediction.half_offsets, held.template, spec.topology)
    single = batch.target_camera is not None
    cameras = prediction.cameras[:, :1] if single else prediction.cameras
    renders = render_hypotheses(
      vertices,
      cameras,
      jnp.zeros(len(cameras), jnp.int32),
      flow_map=prediction.flow_map,
      image=batch.image,
      part_texels=texels,
      spec=spec,
    )
    return _sum_of_squares((renders.alpha, renders.fragments.rgba, renders.colors))

  return rendered


def _losses(spec: ObjectiveSpec) -> Callable[..., jax.Array]:
  """The objective.

  It is a function of a prediction, the state of EM, a batch, a key, and the discriminator's
  parameters.
  """

  def losses(
    prediction: Prediction, held: EMState, batch: Batch, key: PRNGKeyArray, discriminator: PyTree
  ) -> jax.Array:
    return total_loss(
      prediction,
      held,
      batch,
      key,
      round_step=jnp.int32(1000),
      spec=spec,
      discriminator=make_discriminator(discriminator) if discriminator else None,
    )[0]

  return losses
