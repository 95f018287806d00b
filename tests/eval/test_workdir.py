"""Which evaluation a run's folder holds, and what measuring one needs."""

import json
import types

import pytest

from tests.tiny import tiny_config
from umr_jax.config.settings import to_dict
from umr_jax.eval.evaluate import Evaluation
from umr_jax.eval.workdir import final_evaluation


@pytest.mark.parametrize(
  ("found", "read"),
  [
    ({"split": "test", "step": 4, "refine_steps": 0}, True),
    ({"split": "train", "step": 4, "refine_steps": 0}, False),
    ({"split": "test", "step": 2, "refine_steps": 0}, False),
    ({"split": "test", "step": 4, "refine_steps": 100}, False),
    ({}, False),
  ],
)
def test_an_evaluation_is_read_where_it_is_the_run_s_last(tmp_path, monkeypatch, found, read):
  def recorded(workdir, *, split, dataset):
    return Evaluation({"of": split}, predictions=None)

  snapshot = types.SimpleNamespace(config=to_dict(tiny_config(tmp_path / "cache")), step=4)
  monkeypatch.setattr("umr_jax.eval.workdir.read_checkpoint", lambda workdir: snapshot)
  monkeypatch.setattr("umr_jax.eval.workdir.evaluate_workdir", recorded)
  (tmp_path / "evaluation.json").write_text(json.dumps(found))
  assert final_evaluation(tmp_path) == (found if read else {"of": "test"})
