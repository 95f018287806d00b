"""Runs of one process that share what they compile, which takes most of the time of a short run."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator

import pytest

from umr_jax.config.settings import Config
from umr_jax.em.round import Round, make_round
from umr_jax.eval import predictions
from umr_jax.predict.test_time import InferWithMasks, make_infer


@contextlib.contextmanager
def compiled_once() -> Iterator[None]:
  """Runs that differ at most in where their parts come from share their compiled functions.

  These hold no state, and read no parts. That a run ends alike in a process that compiles its own
  is for a test to show that starts one.
  """

  @functools.cache
  def round_of(config: Config, index: int) -> Round:
    return make_round(config, index=index)

  @functools.cache
  def infer_of(config: Config) -> InferWithMasks:
    return make_infer(config)

  def bare(config: Config) -> Config:
    data = dataclasses.replace(config.data, parts="given", part_file="")
    return dataclasses.replace(config, data=data)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
      "umr_jax.em.loop.make_round", lambda config, *, index: round_of(bare(config), index)
    )
    patch.setattr("umr_jax.eval.workdir.make_infer", lambda config: infer_of(bare(config)))
    patch.setattr(predictions, "_make_observe", functools.cache(predictions._make_observe))
    yield
