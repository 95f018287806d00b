"""Progress: every item comes through, and where there is no terminal a log says how far it is."""

import itertools
import logging as python_logging

import pytest

from umr_jax import progress
from umr_jax.progress import tracked


@pytest.fixture
def seconds(monkeypatch):
  """A clock that goes on by 15 seconds each time that it is read."""
  clock = itertools.count(0, 15)
  monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))


def test_a_log_has_a_line_from_time_to_time(seconds, caplog, capsys):
  with caplog.at_level(python_logging.INFO, logger="absl"):
    assert list(tracked("abcdef", "letters, images", total=17, step=3)) == list("abcdef")
  lines = [record.getMessage() for record in caplog.records]
  assert lines == ["letters, images: 6 of 17", "letters, images: 12 of 17"]
  assert "letters" not in capsys.readouterr().err  # no bar


def test_a_stage_that_is_left_early_leaves_nothing_open():
  items = tracked(iter(range(10)), "numbers", total=10)
  assert next(items) == 0
  items.close()
  with pytest.raises(StopIteration):
    next(items)
