"""Ordered work on threads: NumPy, PIL and file reading release Python's lock for most of it."""

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(
  function: Callable[[Item], Result],
  items: Iterable[Item],
  *,
  workers: int | None = None,
  ahead: int = 16,
) -> Iterator[Result]:
  """`map` on threads: results in the items' order, and a limited number computed ahead.

  Args:
    function: what to do with an item; an exception of it is raised where its result is due.
    items: read lazily.
    workers: threads; None takes one per CPU core.
    ahead: how many results may be computed before they are due: bounds the memory.
  """
  pending: collections.deque[Future[Result]] = collections.deque()
  pool = ThreadPoolExecutor(max_workers=workers or os.cpu_count() or 1)
  try:
    for item in items:
      pending.append(pool.submit(function, item))
      if len(pending) >= ahead:
        yield pending.popleft().result()
    while pending:
      yield pending.popleft().result()
  finally:
    # Also when the consumer stops early or an item failed: nothing new is started.
    pool.shutdown(wait=True, cancel_futures=True)
