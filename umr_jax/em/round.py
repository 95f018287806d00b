"""The compiled functions of a round, made of the config: what they call takes values."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.config.settings import Config
from umr_jax.em.canonical_features import ComputeRows, vertex_rows
from umr_jax.em.image_statistics import ComputeStatistics, make_image_statistics
from umr_jax.losses.spec import ObjectiveSpec
from umr_jax.models.discriminator import Discriminator
from umr_jax.models.infer import Infer, build_net, build_topology_from, infer
from umr_jax.models.initialize import draw_variables, init_variables
from umr_jax.models.umr_net import UMRNet
from umr_jax.predict.fit_mesh import Fitting, fit_cameras
from umr_jax.predict.test_time import make_infer
from umr_jax.random import Purpose, run_seed
from umr_jax.train import parallel
from umr_jax.train.augment import Strengths
from umr_jax.train.optimizer import make_optimizer
from umr_jax.train.step import Encode, TrainStep, make_encode, make_train_step, new_train_state
from umr_jax.types import Batch, Model, Topology, TrainState, host

# Of the target cameras of a batch: steps, and by how much one moves them at first (`Fitting`).
_CAMERA_STEPS, _CAMERA_RATE = 40, 0.01

FitCameras = Callable[[Model, Batch, Float[Array, "B 7"]], Float[Array, "B 7"]]


@dataclasses.dataclass(frozen=True, eq=False)
class Round:
  """The compiled functions of one round; its network may have other heads than the last one's."""

  topology: Topology
  network: UMRNet
  init_train_state: Callable[[int], TrainState]  # an untrained network at a step of the run
  train_step: TrainStep  # replicated state, sharded batch
  # With a frozen encoder: its replicated weights, sharded batch, and the step's key.
  encode: Encode | None
  image_statistics: ComputeStatistics  # replicated model, sharded batch
  fit_cameras: FitCameras  # likewise, and sharded target cameras
  # Likewise, without cameras; None where nothing reads canonical features.
  vertex_rows: ComputeRows | None
  infer: Infer  # host model, whole batch
  infer_refined: Infer  # the same with test-time optimisation, where the config asks for it


def make_round(config: Config, *, index: int) -> Round:
  """Builds the network of a round and compiles nothing yet.

  Args:
    config: of the run.
    index: the round, from 0; it sets the weights of the losses, the number of camera hypotheses
      and the initial parameters.

  Raises:
    FileNotFoundError: if a file of pretrained weights is named and not there.
  """
  config = config.at_round(index)
  topology = build_topology_from(config)
  net = build_net(config, hypotheses=config.hypotheses(index))
  start, stop = config.round_bounds()[index]
  steps = stop - start if config.em.restart else config.train.steps
  optimizer = make_optimizer(config.train, steps=steps)
  objective = ObjectiveSpec.from_config(config, topology)
  augment = Strengths(
    color=config.data.color_jitter,
    background=config.data.background,
    rotation=config.data.rotation,
    stretch=config.data.stretch,
  )
  train_step = make_train_step(net, optimizer, objective=objective, augment=augment)
  image_statistics = make_image_statistics(
    uv_height=config.geometry.uv_height,
    uv_projection=config.em.uv_projection,
    objective=objective,
  )

  def init_train_state(step: int) -> TrainState:
    params, batch_stats, frozen = init_variables(
      net, config, seed=run_seed(config.train.seed, Purpose.NETWORK, index)
    )
    discriminator = _init_discriminator(config, index)
    return host(
      new_train_state(
        params, batch_stats, optimizer, step=step, frozen=frozen, discriminator=discriminator
      )
    )

  frozen = net.encoder == "efficientnet"
  return Round(
    topology=topology,
    network=net,
    init_train_state=init_train_state,
    train_step=parallel.parallel_step(train_step, donate=True),
    encode=parallel.keyed_map(make_encode(augment)) if frozen else None,
    image_statistics=parallel.pmap_map(image_statistics),
    fit_cameras=parallel.pmap_map(_make_fit_cameras(config, topology)),
    vertex_rows=parallel.pmap_map(vertex_rows) if frozen and config.refine.steps else None,
    infer=jax.jit(infer),
    infer_refined=jax.jit(make_infer(config)),
  )


def _make_fit_cameras(config: Config, topology: Topology) -> FitCameras:
  """Fits target cameras to the images' silhouettes, under the shapes that the network predicts."""
  fitting = Fitting.from_config(config)
  fitting = dataclasses.replace(
    fitting,
    steps=_CAMERA_STEPS,
    learning_rate=_CAMERA_RATE,
    render=dataclasses.replace(fitting.render, image_size=config.render_size),
  )

  def fit(model: Model, batch: Batch, cameras: Float[Array, "B 7"]) -> Float[Array, "B 7"]:
    vertices = infer(model, batch.image).vertices
    return fit_cameras(cameras, vertices, batch.mask, topology, fitting=fitting)

  return fit


def _init_discriminator(config: Config, index: int) -> dict[str, Any]:
  """The discriminator's initial parameters; none where the config asks for none."""
  if not config.loss.adversary:
    return {}
  channels = 1 if config.loss.adversary_domain == "mask" else 3
  images = jax.ShapeDtypeStruct((1, config.render_size, config.render_size, channels), jnp.float32)
  seed = run_seed(config.train.seed, Purpose.DISCRIMINATOR, index)
  return draw_variables(Discriminator(), images, seed=seed)["params"]
