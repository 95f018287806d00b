"""The EM loop: rounds of an E-step and an M-step; template and canonical map are explicit state.

Source: Li et al. 2020, section 3.3 and supplementary 2.3.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from absl import logging

from umr_jax.config.settings import Config, to_dict
from umr_jax.data.dataset import Split
from umr_jax.data.transforms import CropSpec
from umr_jax.em.aggregate import aggregate
from umr_jax.em.align_to_vertical import align_to_vertical, camera_rotations, mean_up
from umr_jax.em.canonical_features import with_canonical_features
from umr_jax.em.e_step import TrainingBatches, e_step, encode_on_host
from umr_jax.em.image_statistics import rows_of
from umr_jax.em.m_step import m_step, recentre
from umr_jax.em.monitor import Monitor
from umr_jax.em.plan import Event, Intervals, Stop, e_step_plan, stops_ahead
from umr_jax.em.round import Round, make_round
from umr_jax.em.target_cameras import with_fitted_cameras, with_target_cameras
from umr_jax.errors import Preempted
from umr_jax.init.pose_search import PoseSearch
from umr_jax.init.state import init_em_state
from umr_jax.models.assemble import read_uv_pixels
from umr_jax.models.infer import make_model, network_round
from umr_jax.random import Purpose, run_key
from umr_jax.train import parallel
from umr_jax.train.checkpoint import Checkpointer
from umr_jax.types import EMState, Model, TrainState, host

States = tuple[TrainState, EMState]


@dataclasses.dataclass(frozen=True, eq=False)
class EMLoop:
  """Everything about a run that does not change while it runs."""

  config: Config
  train_split: Split
  checkpointer: Checkpointer
  monitor: Monitor

  # Not a cache of the class: it would keep every loop, and its data, as long as the process lives.
  _rounds: dict[int, Round] = dataclasses.field(default_factory=dict, init=False, repr=False)
  _batches: dict[tuple[int, bool, int], TrainingBatches] = dataclasses.field(
    default_factory=dict, init=False, repr=False
  )

  def run(self) -> States:
    """Trains from the last good checkpoint, or from the initial states, to the end.

    Returns:
      Host states: the last round's network, and the template after its M-step.

    Raises:
      Preempted: after a signal asked the run to stop and it saved itself.
      NonFiniteError: when a metric is no longer finite; the last good checkpoint stays.
    """
    states = self._restored_or_initial()
    for index in range(int(states[1].round), self.config.em.rounds):
      states = self._e_step(states, index)
      states = self._m_step(states, index)
      states = self._end_round(states, index)
    self.checkpointer.wait()
    return states

  def round(self, index: int) -> Round:
    """The compiled functions of a round."""
    if index not in self._rounds:
      self._rounds[index] = make_round(self.config, index=index)
    return self._rounds[index]

  def plan(self, em_state: EMState, index: int) -> tuple[Stop, ...]:
    """What happens during the E-step of a round, and after which step.

    Args:
      em_state: with which the round began.
      index: of the round.
    """
    em, log = self.config.em, self.config.log
    new_network = index > 0 and em.restart
    align = (
      new_network and self.config.model.camera_spread and self.config.model.camera_pose == "free"
    )
    due = {
      Event.ALIGN: align,
      Event.NEW_NETWORK: new_network,
      # The initialization may have found them, and so may the round before.
      Event.POSE_SEARCH: self.config.loss.target_camera and em_state.target_cameras is None,
    }
    return e_step_plan(
      int(em_state.round_start),
      self.config.round_bounds()[index][1],
      opening=tuple(event for event, is_due in due.items() if is_due),
      intervals=Intervals(
        checkpoint=self.config.checkpoint.every,
        panel=log.panel_every,
        # As in the release, whose second stage has a new network and a template that stays.
        template=0 if new_network else em.template_every,
        parts=em.parts_every,
      ),
    )

  def _restored_or_initial(self) -> States:
    def like(em_state: EMState, step: int) -> TrainState:
      return self.round(network_round(em_state, step)).init_train_state(step)

    restored = self.checkpointer.restore_latest(like)
    if restored is None:
      now = self.round(0)
      em_state = init_em_state(self.config, now.topology, self.train_split)
      self.monitor.cameras_found(em_state, self.train_split, now.topology)
      still = np.zeros_like(em_state.template.half_vertices)
      self.monitor.template_updated(0, em_state, now.topology, mean_offset=still)
      return now.init_train_state(0), em_state
    step, em_state = restored.step, restored.em_state
    logging.info("Resuming from the checkpoint of step %d.", step)
    self.monitor.resumed(step)
    if int(em_state.round) >= self.config.em.rounds and step < self.config.train.steps:
      # A finished run that was given more steps: its last round goes on, with the same network.
      last_start = self.config.round_bounds()[-1][0]
      em_state = dataclasses.replace(
        em_state, round=em_state.round - 1, round_start=np.int32(min(last_start, step - 1))
      )
    return restored.train_state, em_state

  def _e_step(self, states: States, index: int) -> States:
    """The gradient steps of one round, with the events of its plan between them."""
    plan = self.plan(states[1], index)
    for stop in stops_ahead(plan, int(states[0].step)):
      states = self._gradient_steps(states, index, until=stop.step)
      step = int(states[0].step)
      events = stop.events if step == stop.step else ()
      preempted = self.monitor.stopping and plan[0].step < step < plan[-1].step
      if preempted and Event.CHECKPOINT not in events:
        events = (*events, Event.CHECKPOINT)
      for event in events:
        states = self._on(event, states, index)
      if preempted:
        self.checkpointer.wait()
        raise Preempted(f"stopped at step {step} and saved; the same command resumes from there")
    return states

  def _on(self, event: Event, states: States, index: int) -> States:
    """Carries out one event."""
    train_state, em_state = states
    match event:
      case Event.ALIGN:
        return train_state, self._aligned(states, index - 1)
      case Event.NEW_NETWORK:
        return self.round(index).init_train_state(int(train_state.step)), em_state
      case Event.POSE_SEARCH:
        return train_state, self._with_target_cameras(em_state, self.round(index))
      case Event.UPDATE_PARTS:
        return self._m_step(states, index, template=False)
      case Event.UPDATE_TEMPLATE | Event.UPDATE_BOTH:
        states = train_state, self._with_fitted_cameras(states, index)
        return self._m_step(states, index, parts=event == Event.UPDATE_BOTH)
      case Event.PANEL:
        now = self.round(index)
        self.monitor.panel(int(train_state.step), now.infer_refined, self._model(states, index))
      case Event.CHECKPOINT:
        self._save(states)
    return states

  def _gradient_steps(self, states: States, index: int, *, until: int) -> States:
    """Gradient steps up to a number of them; fewer if a signal asks the run to stop."""
    train_state, em_state = states
    start, train = int(train_state.step), self.config.train
    if start == until:
      return states
    replicated = e_step(
      parallel.replicate(train_state),
      # Target cameras come with the batches.
      parallel.replicate(dataclasses.replace(em_state, target_cameras=None)),
      train_step=self.round(index).train_step,
      batches=self._training_batches(states, index).steps(start, until),
      key=run_key(train.seed, Purpose.TRAINING),
      record=self.monitor.record,
    )
    self.monitor.flush()
    parallel.assert_replicated(replicated)
    return parallel.unreplicate(replicated), em_state

  def _training_batches(self, states: States, index: int) -> TrainingBatches:
    """Those of a round, which keep what they have drawn while nothing that they hold changes."""
    train_state, em_state = states
    parts = self.config.semantic and em_state.canonical_uv is not None
    encode = self.round(index).encode
    holds = (index, parts, id(em_state.target_cameras))
    if holds not in self._batches:
      self._batches.clear()
      self._batches[holds] = TrainingBatches(
        self.train_split,
        self.config,
        target_cameras=em_state.target_cameras,
        parts=parts,
        encode=encode and encode_on_host(encode, train_state.frozen, seed=self.config.train.seed),
      )
    return self._batches[holds]

  def _m_step(
    self, states: States, index: int, *, template: bool = True, parts: bool = True
  ) -> States:
    """Selective aggregation over the training set, the M-step, and the network re-centred."""
    train_state, em_state = states
    topology, compute = self.round(index).topology, self.round(index).image_statistics
    model = self._model(states, index)
    statistics = aggregate(
      lambda: rows_of(compute, model, self.train_split, self.config, name="M-step", parts=parts),
      k=max(1, round(self.config.em.top_fraction * len(self.train_split))),
      read=read_uv_pixels(topology, uv_height=self.config.geometry.uv_height),
    )
    em_state, mean_offset = m_step(em_state, statistics, topology=topology, template=template)
    self.monitor.template_updated(
      int(train_state.step), em_state, topology, mean_offset=mean_offset
    )
    logging.info(
      "M-step: the template moved by %.3f on average over %d images; part maps of %d images.",
      float(abs(mean_offset).mean()),
      statistics.num_offsets,
      statistics.num_uv_parts,
    )
    return host(recentre(train_state, jnp.asarray(mean_offset))), em_state

  def _end_round(self, states: States, index: int) -> States:
    """The states with which the next round begins; the round is reported and saved."""
    train_state, em_state = states[0], self._with_canonical_features(states, index)
    steps = (int(em_state.round_start), int(train_state.step))
    em_state = dataclasses.replace(em_state, round=em_state.round + 1, round_start=train_state.step)
    self.monitor.end_round(index, em_state, self.round(index).topology, steps=steps)
    self._save((train_state, em_state))
    return train_state, em_state

  def _model(self, states: States, index: int) -> Model:
    return make_model(self.config, self.round(index).network, *states)

  def _aligned(self, states: States, previous: int) -> EMState:
    """The EM state turned upright by the cameras of the round before, on every host alike."""
    rotations = camera_rotations(
      self.round(previous).infer,
      self._model(states, previous),
      self.train_split,
      spec=CropSpec.from_config(self.config.data),
      batch_size=self.config.train.batch_size,
    )
    return parallel.broadcast_from_host0(align_to_vertical(states[1], mean_up(rotations)))

  def _with_target_cameras(self, em_state: EMState, now: Round) -> EMState:
    em_state = with_target_cameras(
      em_state,
      self.train_split,
      now.topology,
      search=PoseSearch.from_config(self.config),
      padding=self.config.data.padding,
      # Small crops: a batch of four times as many pays for going through all views once.
      batch_size=4 * self.config.train.batch_size,
      parts=self.config.semantic,
    )
    self.monitor.cameras_found(em_state, self.train_split, now.topology)
    return em_state

  def _with_fitted_cameras(self, states: States, index: int) -> EMState:
    """The EM state with target cameras that follow the shapes."""
    return with_fitted_cameras(
      states[1],
      self.train_split,
      self._model(states, index),
      fit=self.round(index).fit_cameras,
      spec=CropSpec.from_config(self.config.data),
      batch_size=self.config.train.batch_size,
    )

  def _with_canonical_features(self, states: States, index: int) -> EMState:
    """The EM state with what the images show at the vertices, where prediction makes use of it."""
    compute = self.round(index).vertex_rows
    if compute is None:
      return states[1]
    return with_canonical_features(
      states[1], self.train_split, self._model(states, index), compute=compute, config=self.config
    )

  def _save(self, states: States) -> None:
    self.checkpointer.save(int(states[0].step), *states, to_dict(self.config))
