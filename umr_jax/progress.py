"""How far a stage is: a bar in a terminal, lines in a log."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import tqdm
from absl import logging

_Item = TypeVar("_Item")

# Between two lines, where there is no bar.
_SECONDS = 20.0


def tracked(items: Iterable[_Item], what: str, *, total: int, step: int = 1) -> Iterator[_Item]:
  """Yields the items of a stage, and shows how many of them are done.

  Args:
    items: any.
    what: the stage's name and unit, "features, images".
    total: how much there is to do; for several images an item: of images.
    step: how much of it an item is; the last may be less.
  """
  done, said = 0, time.monotonic()
  with tqdm.tqdm(total=total, desc=what, leave=False, disable=None) as bar:
    for item in items:
      yield item
      bar.update(min(step, total - done))
      done = min(done + step, total)
      if bar.disable and done < total and time.monotonic() - said > _SECONDS:
        said = time.monotonic()
        logging.info("%s: %d of %d", what, done, total)
