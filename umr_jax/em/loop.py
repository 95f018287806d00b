"""The EM loop: rounds of E-steps and M-steps, with the template as explicit state."""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from umr_jax.config.settings import Config, to_dict
from umr_jax.data.batching import evaluation_batches
from umr_jax.data.dataset import Split
from umr_jax.data.transforms import CropSpec
from umr_jax.em.aggregate import aggregate
from umr_jax.em.align_to_vertical import align_to_vertical, stood_up
from umr_jax.em.e_step import Round, e_step, make_round, training_batches
from umr_jax.em.m_step import m_step
from umr_jax.em.measure import Measurement, on_host
from umr_jax.em.monitor import Monitor
from umr_jax.errors import Preempted
from umr_jax.init.pose_search import CROP_SIZE, template_vertices
from umr_jax.init.state import init_em_state
from umr_jax.models.infer import Inference, make_model
from umr_jax.random import Purpose, run_key
from umr_jax.train import parallel
from umr_jax.train.checkpoint import Checkpointer
from umr_jax.train.recentre import recentre
from umr_jax.types import EMState, Model, TrainState, host, network_round

# Images whose cameras say what is up.
_UP_IMAGES = 500


@dataclasses.dataclass(frozen=True, eq=False)
class EMLoop:
  """Everything about a run that does not change while it runs."""

  config: Config
  train_split: Split
  checkpointer: Checkpointer
  monitor: Monitor

  # Not a cache of the class: it would keep every loop, and its data, as long as the process lives.
  _rounds: dict[int, Round] = dataclasses.field(default_factory=dict, init=False, repr=False)

  def round(self, index: int) -> Round:
    """The compiled functions of a round."""
    if index not in self._rounds:
      self._rounds[index] = make_round(self.config, index=index)
    return self._rounds[index]

  def run(self) -> tuple[TrainState, EMState]:
    """Trains from the last good checkpoint, or from nothing, to the end.

    Returns:
      Host states: the last round's network, and the template after its M-step.

    Raises:
      Preempted: after a signal asked the run to stop and it saved itself.
      NonFiniteError: when a metric stops being a number; the last good checkpoint stays.
    """
    train_state, em_state = self._begin()
    while int(em_state.round) < self.config.em.rounds:
      index = int(em_state.round)
      if network_round(em_state, int(train_state.step)) != index:
        train_state, em_state = self._next_round(train_state, em_state, index)
      train_state, em_state = self._e_step(train_state, em_state)
      train_state, em_state = self._m_step(train_state, em_state, index)
      steps = (int(em_state.round_start), int(train_state.step))
      em_state = dataclasses.replace(
        em_state, round=em_state.round + 1, round_start=train_state.step
      )
      self.monitor.round_ended(index, em_state, self.round(index).topology, steps=steps)
      self._save(train_state, em_state)
    self.checkpointer.wait()
    return train_state, em_state

  def _begin(self) -> tuple[TrainState, EMState]:
    def like(em_state: EMState, step: int) -> TrainState:
      return self.round(network_round(em_state, step)).new_state(step)

    restored = self.checkpointer.restore_latest(like)
    if restored is None:
      return (
        self.round(0).new_state(0),
        init_em_state(self.config, self.round(0).topology, self.train_split),
      )
    step, em_state = restored.step, restored.em_state
    logging.info("Going on from the checkpoint of step %d.", step)
    self.monitor.resumed(step)
    if int(em_state.round) >= self.config.em.rounds and step < self.config.train.steps:
      # A finished run that was given more steps: its last round goes on, with the same network.
      last_start = self.config.round_bounds()[-1][0]
      em_state = dataclasses.replace(
        em_state, round=em_state.round - 1, round_start=np.int32(min(last_start, step - 1))
      )
    return restored.train_state, em_state

  def _next_round(
    self, train_state: TrainState, em_state: EMState, index: int
  ) -> tuple[TrainState, EMState]:
    """The states with which a round begins: its network may be a new one."""
    free = self.config.model.camera_pose == "free"
    if self.config.em.restart and self.config.em.align_to_vertical and free:
      em_state = parallel.of_first_host(
        stood_up(em_state, align_to_vertical(self._rotations(train_state, em_state, index - 1)))
      )
    if self.config.em.restart:
      train_state = self.round(index).new_state(int(train_state.step))
    return train_state, em_state

  def _e_step(self, train_state: TrainState, em_state: EMState) -> tuple[TrainState, EMState]:
    """The gradient steps of one round, with its panels, checkpoints and template updates."""
    index, start = int(em_state.round), int(em_state.round_start)
    stop = self.config.round_bounds()[index][1]
    moving, mapping = self.config.em.template_every, self.config.em.parts_every
    shard = (jax.process_index(), jax.process_count())
    key = run_key(self.config.train.seed, Purpose.TRAINING)
    begins = int(train_state.step) == start
    if self.config.loss.target_camera and begins and em_state.target_cameras is None:
      em_state = self._search(em_state, index)
    while (step := int(train_state.step)) < stop:
      pause = min(stop, *(step - step % n + n for n in self._pauses()))
      for every in filter(None, (moving, mapping)):
        pause = min(pause, step - (step - start) % every + every)
      replicated = e_step(
        parallel.replicate(train_state),
        # Its cameras come with the batches.
        parallel.replicate(dataclasses.replace(em_state, target_cameras=None)),
        train_step=self.round(index).train_step,
        batches=training_batches(
          self.train_split, self.config, em_state, start=step, stop=pause, shard=shard
        ),
        key=key,
        record=self.monitor.record,
      )
      self.monitor.flush()
      parallel.assert_replicated(replicated)
      train_state = parallel.unreplicate(replicated)
      step = int(train_state.step)
      template, parts = (
        every > 0 and step < stop and (step - start) % every == 0 for every in (moving, mapping)
      )
      if template or parts:
        train_state, em_state = self._m_step(
          train_state, em_state, index, template=template, parts=parts
        )
      if step % self.config.log.panel_every == 0 or step == stop:
        now = self.round(index)
        self.monitor.panel(step, now.show, self._model(train_state, em_state, index))
      if step < stop and (step % self.config.checkpoint.every == 0 or self.monitor.stopping):
        self._save(train_state, em_state)
      if self.monitor.stopping and step < stop:
        self.checkpointer.wait()
        raise Preempted(f"stopped at step {step} and saved; the same command goes on from there")
    return train_state, em_state

  def _pauses(self) -> tuple[int, ...]:
    return (self.config.checkpoint.every, self.config.log.panel_every)

  def _m_step(
    self,
    train_state: TrainState,
    em_state: EMState,
    index: int,
    *,
    template: bool = True,
    parts: bool = True,
  ) -> tuple[TrainState, EMState]:
    """Selective aggregation over the training set, the M-step, and the network re-centred."""
    statistics = aggregate(
      lambda: self._measurements(train_state, em_state, index, parts=parts),
      k=max(1, round(self.config.em.top_fraction * len(self.train_split))),
    )
    em_state, mean_offset = m_step(
      em_state,
      statistics,
      topology=self.round(index).topology,
      template=template,
    )
    logging.info(
      "M-step: the template moved by %.3f on average over %d images; part maps of %d images.",
      float(abs(mean_offset).mean()),
      statistics.num_offsets,
      statistics.num_uv_parts,
    )
    return host(recentre(train_state, jnp.asarray(mean_offset))), em_state

  def _search(self, em_state: EMState, index: int) -> EMState:
    """A camera for every training image, by the template and the canonical map as they are."""
    shapes = template_vertices(em_state, self.round(index).topology)
    views = host(self.round(index).views(shapes, em_state.canonical_uv))
    held, score = parallel.replicate(views), self.round(index).score
    size = (len(self.train_split), len(views.rotations))
    values, places = np.zeros(size, np.float32), np.zeros((*size, 3), np.float32)
    for batch, _ in evaluation_batches(
      self.train_split,
      CropSpec(image_size=CROP_SIZE, padding=self.config.data.padding),
      # Small crops: a batch of four times as many pays for going through all views once.
      batch_size=4 * self.config.train.batch_size,
      parts=self.config.semantic,
      shard=(jax.process_index(), jax.process_count()),
    ):
      scores = parallel.unshard(score(held, parallel.shard_batch(batch)))
      scores = jax.device_get(parallel.gather_rows(scores))
      rows = scores.index[scores.valid]
      values[rows], places[rows] = scores.values[scores.valid], scores.scale_shift[scores.valid]
    bank = host(self.round(index).choose(values, places, views.rotations))
    logging.info("Found a camera for each of %d images.", len(bank))
    return dataclasses.replace(em_state, target_cameras=bank)

  def _rotations(self, train_state: TrainState, em_state: EMState, index: int) -> np.ndarray:
    """The most probable camera's rotation [M, 4] of some training images."""
    seen = self.train_split.subsample(_UP_IMAGES)
    inferred = self._inferred(train_state, em_state, index, seen)
    return np.concatenate([batch.camera[:, 3:] for batch in inferred])

  def _inferred(
    self, train_state: TrainState, em_state: EMState, index: int, split: Split
  ) -> Iterator[Inference]:
    """What a round's network predicts of images, batch by batch, on the host."""
    model = self._model(train_state, em_state, index)
    for batch, _ in evaluation_batches(
      split,
      CropSpec.from_config(self.config.data),
      batch_size=self.config.train.batch_size,
    ):
      found = self.round(index).infer(model, jnp.asarray(batch.image))
      yield jax.tree.map(lambda rows, valid=batch.valid: np.asarray(rows)[valid], found)

  def _measurements(
    self, train_state: TrainState, em_state: EMState, index: int, *, parts: bool
  ) -> Iterator[Measurement]:
    """One pass over the training set: unaugmented, in order, shared among the hosts."""
    model = parallel.replicate(self._model(train_state, em_state, index))
    measure = self.round(index).measure
    for batch, _ in evaluation_batches(
      self.train_split,
      CropSpec.from_config(self.config.data),
      batch_size=self.config.train.batch_size,
      parts=parts,
      shard=(jax.process_index(), jax.process_count()),
    ):
      measured = parallel.unshard(measure(model, parallel.shard_batch(batch)))
      yield on_host(parallel.gather_rows(measured))

  def _model(self, train_state: TrainState, em_state: EMState, index: int) -> Model:
    now = self.round(index)
    return make_model(now.network, now.topology, train_state, em_state)

  def _save(self, train_state: TrainState, em_state: EMState) -> None:
    self.checkpointer.save(int(train_state.step), train_state, em_state, to_dict(self.config))
