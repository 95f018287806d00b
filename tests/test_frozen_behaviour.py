"""What training computes stays what it was, unless a commit says that it is meant to change.

The recordings in tests/golden/frozen_CASE.json are checksums of all parameters, of the template and
of the canonical map after a short run from nothing (`frozen_run.py`); how to make them anew stands
there. On a machine of a kind that made one every byte must agree. Elsewhere the last bits of sums
differ, and Adam makes steps of full length of gradients that are rounding errors: sums over an
array are compared instead, within a multiple of how far the recordings lie apart. Of recordings
that were superseded, since a change has reordered sums or computes something else, only this
distance is used: recordings of the same "generation" are of one computation.
"""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests import frozen_run
from tests.commands import one_device_flags

ROOT = pathlib.Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden"
# Of the largest difference between recordings, which is measured, and of the sum of magnitudes, of
# an array. Both factors are chosen: no third kind of machine was at hand.
SPREADS, SHARE = 5.0, 0.01


@pytest.mark.slow
@pytest.mark.parametrize("case", list(frozen_run.CASES))
def test_a_short_run_ends_where_it_always_did(case, monkeypatch):
  # One device: the suite's four would share the batch.
  monkeypatch.setenv("XLA_FLAGS", one_device_flags())
  monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", frozen_run.UNOPTIMIZED[case])
  done = subprocess.run(
    [sys.executable, "-m", "tests.frozen_run", case], cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr[-2000:]
  found = json.loads(done.stdout)
  recordings = json.loads((GOLDEN / f"frozen_{case}.json").read_text(encoding="utf-8"))
  assert problems(found, recordings) == []


def problems(found: dict, recordings: list[dict]) -> list[str]:
  """The arrays of a run that are not what was recorded."""
  current = [recording for recording in recordings if "superseded" not in recording]
  same = [recording for recording in current if recording["machine"] == found["machine"]]
  wrong = []
  for group in ("params", "template", "canonical_uv"):
    if found[group].keys() != current[0][group].keys():
      wrong.append(f"{group} has other arrays")
      continue
    for name, (digest, *sums) in found[group].items():
      if same:
        agrees = digest == same[0][group][name][0]
      else:
        recorded = np.array([recording[group][name][1:] for recording in current])
        spread = max(
          np.ptp(of_one, axis=0).max() for of_one in _generations(recordings, group, name)
        )
        bound = SPREADS * spread + SHARE * recorded[:, 1].max() + 1e-6
        agrees = (np.abs(np.array(sums) - recorded).min(axis=0) <= bound).all()
      if not agrees:
        wrong.append(f"{group} {name}")
  return wrong


def _generations(recordings: list[dict], group: str, name: str) -> list[np.ndarray]:
  """An array's sums in the recordings of each generation."""
  found: dict[int, list] = {}
  for recording in recordings:
    if name in recording[group]:
      found.setdefault(recording.get("generation", 0), []).append(recording[group][name][1:])
  return [np.array(sums) for sums in found.values()]


@pytest.mark.parametrize("case", list(frozen_run.CASES))
def test_another_machine_s_recording_passes_and_another_run_does_not(case):
  recordings = json.loads((GOLDEN / f"frozen_{case}.json").read_text(encoding="utf-8"))
  current = [recording for recording in recordings if "superseded" not in recording]
  assert current
  for index, recording in enumerate(current):
    assert problems(recording, recordings) == []
    elsewhere = recording | {"machine": "another"}
    assert problems(elsewhere, recordings) == []
    # A hundredth more of everything is found on the same machine, a tenth anywhere.
    for factor, machine in ((1.01, recording["machine"]), (1.1, "another")):
      moved = {
        name: [f"{digest}'", *(factor * value for value in sums)]
        for name, (digest, *sums) in recording["params"].items()
      }
      assert problems(recording | {"params": moved, "machine": machine}, recordings), index
