"""The E-step: the network learns while the template and the canonical UV map stand still."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from umr_jax.config.settings import Config
from umr_jax.data.batching import prefetch, train_batch
from umr_jax.data.dataset import Split
from umr_jax.data.transforms import CropSpec
from umr_jax.em.measure import Measure, make_measure
from umr_jax.init.pose_search import Views, ViewScores, make_views, score_views, select_cameras
from umr_jax.losses.texture import texture_distance_from
from umr_jax.models.discriminator import Discriminator
from umr_jax.models.infer import Infer, build_net, build_topology_from, infer
from umr_jax.models.initialize import draw_variables, init_variables
from umr_jax.models.umr_net import UMRNet
from umr_jax.predict.test_time import make_infer
from umr_jax.random import Purpose, run_seed
from umr_jax.train import parallel
from umr_jax.train.augment import Strengths
from umr_jax.train.optimizer import make_optimizer
from umr_jax.train.step import TrainStep, make_train_step, new_train_state
from umr_jax.types import Batch, EMState, Topology, TrainState, host


@dataclasses.dataclass(frozen=True, eq=False)
class Round:
  """The compiled functions of one round; its network may have other heads than the last one's."""

  topology: Topology
  network: UMRNet
  new_state: Callable[[int], TrainState]  # a network that has seen nothing, at a step of the run
  train_step: TrainStep  # replicated state, sharded batch
  measure: Measure  # replicated model, sharded batch
  infer: Infer  # host model, whole batch
  show: Infer  # as prediction has it, with test-time optimisation
  views: Callable[..., Views]  # shapes, canonical map
  score: Callable[..., ViewScores]  # replicated views, sharded batch
  choose: Callable[..., Array]  # values, places and rotations of all images


def make_round(config: Config, *, index: int) -> Round:
  """Builds the network of a round and compiles nothing yet.

  Args:
    config: of the run.
    index: the round, from 0; it sets the weights of the losses, the number of camera hypotheses
      and, through the seed, the first parameters.

  Raises:
    FileNotFoundError: if a file of pretrained weights is named and not there.
  """
  config = config.at_round(index)
  topology = build_topology_from(config)
  start, stop = config.round_bounds()[index]
  net = build_net(config, hypotheses=config.hypotheses(index))
  steps = stop - start if config.em.restart else config.train.steps
  optimizer = make_optimizer(config.train, steps=steps)
  distance = texture_distance_from(config.loss.perceptual_weights)
  shared: dict[str, Any] = {
    "topology": topology,
    "settings": config.render,
    "image_size": config.render_size,
    "distance": distance,
  }

  def new_state(step: int) -> TrainState:
    params, batch_stats, frozen = init_variables(
      net, config, seed=run_seed(config.train.seed, Purpose.NETWORK, index)
    )
    judge = _first_judge(config, seed=run_seed(config.train.seed, Purpose.DISCRIMINATOR, index))
    return host(
      new_train_state(params, batch_stats, optimizer, step=step, frozen=frozen, discriminator=judge)
    )

  train_step = make_train_step(
    net,
    optimizer,
    weights=config.loss,
    augment=Strengths(
      color=config.data.color_jitter,
      background=config.data.background,
      rotation=config.data.rotation,
      stretch=config.data.stretch,
    ),
    **shared,
  )
  return Round(
    topology=topology,
    network=net,
    new_state=new_state,
    train_step=parallel.pmap_step(train_step, donate=True),
    measure=parallel.pmap_map(
      make_measure(
        uv_height=config.geometry.uv_height, uv_projection=config.em.uv_projection, **shared
      )
    ),
    infer=jax.jit(infer),
    show=jax.jit(make_infer(config)),
    views=jax.jit(
      make_views(topology, elevation=config.model.camera_elevation, roll=config.model.camera_roll)
    ),
    score=parallel.pmap_map(score_views),
    choose=jax.jit(functools.partial(select_cameras, evenness=config.em.view_evenness)),
  )


def _first_judge(config: Config, *, seed: int) -> Any:
  """The first parameters of the judge of unseen views; none where the config asks for none."""
  if not config.loss.adversary:
    return {}
  channels = 1 if config.loss.adversary_domain == "mask" else 3
  images = jax.ShapeDtypeStruct((1, config.render_size, config.render_size, channels), jnp.float32)
  return draw_variables(Discriminator(), images, seed=seed)["params"]


def training_batches(
  split: Split,
  config: Config,
  em_state: EMState,
  *,
  start: int,
  stop: int,
  shard: tuple[int, int],
):
  """The batches of steps [start, stop), prepared ahead in the background.

  They hold part maps where a loss reads them, and the bank's cameras where there is a bank.

  A batch is a function of the seed and the step alone, so that a resumed run sees what an unbroken
  one would have.
  """
  train = config.train

  def batch_of(step: int) -> Batch:
    return train_batch(
      split,
      CropSpec.from_config(config.data),
      step=step,
      seed=run_seed(train.seed, Purpose.BATCHES),
      batch_size=train.batch_size,
      parts=config.semantic and em_state.canonical_uv is not None,
      target_cameras=em_state.target_cameras,
      shard=shard,
    )

  return prefetch(batch_of, start, stop)


def e_step(
  train_state: TrainState,
  em_state: EMState,
  *,
  train_step: TrainStep,
  batches: Any,
  key: PRNGKeyArray,
  record: Callable[[dict[str, Any]], bool],
) -> TrainState:
  """Gradient steps over `batches` under a fixed EM state.

  Args:
    train_state: replicated; its memory is given to the result.
    em_state: replicated.
    train_step: the round's compiled step.
    batches: one host batch per step.
    key: the run's key; a step folds its own number into it.
    record: receives every step's (replicated) metrics; True asks to stop after this step.

  Returns:
    The replicated state after the last step.
  """
  for batch in batches:
    train_state, metrics = train_step(train_state, em_state, parallel.shard_batch(batch), key)
    if record(metrics):
      break
  return train_state
