"""Times a training step and its stages on made-up data, and prints one line of JSON.

  python -m experiments.bench_train --config=quickstart
  python -m experiments.bench_train --config=paper --round=1 --random_weights \\
    --config.data.folder=none --repeats=3

No data are read. Peaks of memory are those of all stages together; a CPU tells none of the device.
"""

import json
import pathlib
import sys
import tempfile

from absl import flags

from experiments.studies.train_benchmark import measure_step, with_random_weights
from umr_jax.errors import UsageError
from umr_jax.files import write_text
from umr_jax.launch import define_config, given_config, launch

define_config()
_ROUND = flags.DEFINE_integer("round", 0, "The round whose network is timed.", lower_bound=0)
_RANDOM = flags.DEFINE_bool(
  "random_weights", False, "Random numbers in the place of published weight files."
)
_WORKDIR = flags.DEFINE_string("workdir", "", "Where bench_train.jsonl is written, if anywhere.")
_REPEATS = flags.DEFINE_integer("repeats", 15, "Times that each stage runs.", lower_bound=1)


def main() -> None:
  """Times what the flags name."""
  config = given_config()
  if _ROUND.value >= config.em.rounds:
    raise UsageError(f"--round={_ROUND.value}: the configuration has {config.em.rounds}")
  with tempfile.TemporaryDirectory() as folder:
    if _RANDOM.value:
      config = with_random_weights(config, pathlib.Path(folder))
    result = measure_step(config, round_index=_ROUND.value, repeats=_REPEATS.value)
  line = json.dumps(result) + "\n"
  sys.stdout.write(line)
  if _WORKDIR.value:
    write_text(pathlib.Path(_WORKDIR.value) / "bench_train.jsonl", line)


if __name__ == "__main__":
  launch(main, program_flags=("config",))
