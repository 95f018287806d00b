"""The plan of an E-step: what happens after which gradient step, as data."""

import enum
from typing import NamedTuple


class Event(enum.Enum):
  """What may happen between two gradient steps."""

  ALIGN = "the template is turned so that the cameras' mean up direction is z"
  NEW_NETWORK = "training starts anew with the round's network"
  POSE_SEARCH = "every training image gets a target camera"
  UPDATE_TEMPLATE = "an M-step of the template alone"
  UPDATE_PARTS = "an M-step of the canonical UV map alone"
  UPDATE_BOTH = "an M-step of both within the round"
  PANEL = "a panel of images and their reconstructions is written"
  CHECKPOINT = "the run is saved"


class Stop(NamedTuple):
  """A pause between gradient steps."""

  step: int  # gradient steps taken since the run began
  events: tuple[Event, ...]  # in the order in which they happen


class Intervals(NamedTuple):
  """How often events recur, in gradient steps; 0 for never."""

  checkpoint: int  # counted from the run's first step
  panel: int  # likewise
  template: int = 0  # counted from the round's first step
  parts: int = 0  # likewise


def e_step_plan(
  start: int, stop: int, *, opening: tuple[Event, ...], intervals: Intervals
) -> tuple[Stop, ...]:
  """The stops of one round's E-step.

  Args:
    start: the step at which the round begins.
    stop: the step at which it ends.
    opening: events before its first gradient step.
    intervals: of the events between.

  Returns:
    Stops in the order of their steps: the first at `start`, with the opening; the last at `stop`,
    with a panel. A stop's checkpoint is its last event, so that a run resumed from it has nothing
    of that stop left to do.
  """

  def events(step: int) -> tuple[Event, ...]:
    if step == stop:
      return (Event.PANEL,)
    due = {
      _UPDATES.get((_due(step - start, intervals.template), _due(step - start, intervals.parts))),
      Event.PANEL if _due(step, intervals.panel) else None,
      Event.CHECKPOINT if _due(step, intervals.checkpoint) else None,
    }
    return tuple(event for event in Event if event in due)

  planned = (Stop(step, events(step)) for step in range(start + 1, stop + 1))
  return Stop(start, opening), *(pause for pause in planned if pause.events)


def stops_ahead(plan: tuple[Stop, ...], step: int) -> tuple[Stop, ...]:
  """The stops that a run which stands at `step` has still to come to.

  Args:
    plan: of the round in progress.
    step: gradient steps taken since the run began, from the plan's first stop to its last.
  """
  begins = step == plan[0].step
  return tuple(stop for stop in plan if begins or stop.step > step)


_UPDATES = {
  (True, True): Event.UPDATE_BOTH,
  (True, False): Event.UPDATE_TEMPLATE,
  (False, True): Event.UPDATE_PARTS,
}


def _due(step: int, interval: int) -> bool:
  return interval > 0 and step % interval == 0
