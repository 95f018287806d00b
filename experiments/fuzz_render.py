"""Renders random hostile triangles and checks what the rasterizer promises of them.

  python -m experiments.fuzz_render --sets=100000

Prints one line of JSON: how many sets were rendered, and every promise that was broken, with the
seed that samples it again. The exit code is 1 if there was any.
"""

import dataclasses
import json
import pathlib
from typing import Any

import tqdm
from absl import flags

from experiments.studies import render_fuzz
from umr_jax.files import write_text
from umr_jax.launch import launch

_SETS = flags.DEFINE_integer("sets", 100_000, "Triangle sets to render.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of all that is random.", lower_bound=0)
_WORKDIR = flags.DEFINE_string("workdir", "", "Where fuzz_render.json is written, if anywhere.")
_SHOWN = 20


def main() -> dict[str, Any]:
  """Runs the fuzzer with the flags' values.

  Raises:
    ValueError: naming the promises that were broken.
  """
  done = 0
  failures: list[dict[str, Any]] = []
  with tqdm.tqdm(total=_SETS.value, unit="set") as bar:
    for total, broken in render_fuzz.check(_SETS.value, seed=_SEED.value):
      bar.update(total - done)
      done = total
      failures += [dataclasses.asdict(failure) for failure in broken]
  result = {"sets": done, "seed": _SEED.value, "failures": failures}
  if _WORKDIR.value:
    write_text(pathlib.Path(_WORKDIR.value) / "fuzz_render.json", json.dumps(result) + "\n")
  if failures:
    raise ValueError(f"{len(failures)} promises broken in {done} sets: {failures[:_SHOWN]}")
  return result


if __name__ == "__main__":
  launch(main)
