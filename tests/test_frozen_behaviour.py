"""What training computes stays what it was, unless a commit says that it is meant to change.

The checksums in tests/golden/frozen_CASE.json are of all parameters, of the template and of the
canonical map after a short run from nothing (`frozen_run.py`); how to record them anew stands
there. On a machine like the one that recorded them every byte must agree. Elsewhere the last bits
of sums differ, and Adam makes steps of full length of gradients that are rounding errors: sums over
an array are compared instead, within what such steps can change.
"""

import json
import pathlib
import subprocess
import sys

import pytest

from tests import frozen_run

ROOT = pathlib.Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden"
# Of the sum of magnitudes of an array. Chosen, not measured: no other instruction set was at hand.
TOLERANCE = 0.03


@pytest.mark.slow
@pytest.mark.parametrize("case", list(frozen_run.CASES))
def test_a_short_run_ends_where_it_always_did(case, monkeypatch):
  # One device: the suite's four would share the batch.
  monkeypatch.setenv("XLA_FLAGS", "")
  done = subprocess.run(
    [sys.executable, "-m", "tests.frozen_run", case], cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr[-2000:]
  found = json.loads(done.stdout)
  expected = json.loads((GOLDEN / f"frozen_{case}.json").read_text(encoding="utf-8"))
  for group in ("params", "template", "canonical_uv"):
    assert found[group].keys() == expected[group].keys()
    if found["machine"] == expected["machine"]:
      changed = [n for n, value in found[group].items() if value[0] != expected[group][n][0]]
      assert not changed, f"{len(changed)} of {len(found[group])} arrays differ: {changed[:5]}"
    for name, (_, *sums) in found[group].items():
      _, *wanted = expected[group][name]
      assert sums == pytest.approx(wanted, abs=TOLERANCE * wanted[1] + 1e-6), name
