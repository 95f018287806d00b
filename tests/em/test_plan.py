"""The plan of an E-step: every event at its step, in its order, and what is left after a resume."""

from umr_jax.em.plan import Event, Intervals, Stop, e_step_plan, stops_ahead

OPENING = (Event.NEW_NETWORK, Event.POSE_SEARCH)


def plan(start, stop, *, opening=(), **intervals):
  found = {"checkpoint": 100, "panel": 100} | intervals
  return e_step_plan(start, stop, opening=opening, intervals=Intervals(**found))


def test_a_round_without_events_is_one_stretch_of_steps_and_a_panel():
  assert plan(3, 9) == (Stop(3, ()), Stop(9, (Event.PANEL,)))


def test_checkpoints_and_panels_count_from_the_run_s_start_and_updates_from_the_round_s():
  found = plan(3, 13, opening=OPENING, checkpoint=4, panel=6, template=3)
  assert found == (
    Stop(3, OPENING),
    Stop(4, (Event.CHECKPOINT,)),
    Stop(6, (Event.UPDATE_TEMPLATE, Event.PANEL)),
    Stop(8, (Event.CHECKPOINT,)),
    Stop(9, (Event.UPDATE_TEMPLATE,)),
    Stop(12, (Event.UPDATE_TEMPLATE, Event.PANEL, Event.CHECKPOINT)),
    Stop(13, (Event.PANEL,)),
  )


def test_template_and_parts_are_updated_from_one_pass_where_both_are_due():
  found = dict(plan(10, 20, template=4, parts=2))
  assert {step: events for step, events in found.items() if 10 < step < 20} == {
    12: (Event.UPDATE_PARTS,),
    14: (Event.UPDATE_BOTH,),
    16: (Event.UPDATE_PARTS,),
    18: (Event.UPDATE_BOTH,),
  }


def test_the_end_of_a_round_has_its_m_step_to_come_and_updates_and_saves_nothing():
  assert plan(0, 8, checkpoint=4, panel=4, template=4, parts=4)[-1] == Stop(8, (Event.PANEL,))


def test_a_checkpoint_is_the_last_event_of_its_stop():
  for stop in plan(0, 24, opening=OPENING, checkpoint=2, panel=3, template=4, parts=6):
    assert Event.CHECKPOINT not in stop.events[:-1]


def test_a_resumed_run_has_the_rest_of_the_plan_ahead():
  found = plan(4, 12, opening=OPENING, checkpoint=2)
  assert stops_ahead(found, 4) == found
  # Between two stops, at one whose checkpoint it was resumed from, and at the end.
  assert [stop.step for stop in stops_ahead(found, 5)] == [6, 8, 10, 12]
  assert [stop.step for stop in stops_ahead(found, 6)] == [8, 10, 12]
  assert stops_ahead(found, 12) == ()
