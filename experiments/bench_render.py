"""Times the rasterizer, and prints one line of JSON for each case.

  python -m experiments.bench_render
  python -m experiments.bench_render --image_sizes=256 --faces=1280 --batches=16 --sigmas=1e-5
  python -m experiments.bench_render --modes=silhouette --peer=pytorch3d
  python -m experiments.bench_render --image_sizes=256 --batches=1 --modes=rgb --accuracy

Every case runs in a process of its own, in turns with a 2048 x 2048 float32 matrix product.
"""

import importlib.util
import json
import pathlib
import sys

from absl import flags

from experiments.studies import render_benchmark, render_peers
from umr_jax.errors import UsageError
from umr_jax.files import write_text
from umr_jax.launch import launch, numbers

_SIZES = flags.DEFINE_list("image_sizes", ["64", "128", "256"], "Pixels a side.")
_FACES = flags.DEFINE_list("faces", ["320", "1280", "5120"], "Faces of a mesh.")
_BATCHES = flags.DEFINE_list("batches", ["1", "16"], "Images at a time.")
_SIGMAS = flags.DEFINE_list("sigmas", ["1e-5", "1e-4"], "Softness of outlines.")
_MODES = flags.DEFINE_list("modes", list(render_benchmark.MODES), "silhouette, rgb.")
_REPEATS = flags.DEFINE_integer("repeats", 15, "Rounds of a case.", lower_bound=1)
_MESH = flags.DEFINE_string("mesh", "", "An .npz of vertices [B, V, 3] and faces [F, 3] to render.")
_PEER = flags.DEFINE_enum("peer", "", ["", *render_peers.PEERS], "A library to time beside it.")
_ACCURACY = flags.DEFINE_bool(
  "accuracy", False, "Also compare each case's first image and gradients with float64 (slow)."
)
_WORKDIR = flags.DEFINE_string("workdir", "", "Where bench_render.jsonl is written, if anywhere.")


def main() -> None:
  """Runs the cases that the flags name; under --json standard output holds their lines alone."""
  if (peer := _PEER.value) and importlib.util.find_spec(peer) is None:
    raise UsageError(f"--peer={peer}: it is not installed here")
  lines = []
  for case in render_benchmark.cases(
    image_sizes=numbers(_SIZES, int),
    faces=numbers(_FACES, int),
    batches=numbers(_BATCHES, int),
    sigmas=numbers(_SIGMAS, float),
    modes=_MODES.value,
  ):
    result = render_benchmark.measure_alone(
      case, repeats=_REPEATS.value, mesh=_MESH.value, peer=peer, compare=_ACCURACY.value
    )
    lines.append(json.dumps(result))
    sys.stdout.write(lines[-1] + "\n")
    sys.stdout.flush()
  if _WORKDIR.value:
    write_text(pathlib.Path(_WORKDIR.value) / "bench_render.jsonl", "\n".join(lines) + "\n")


if __name__ == "__main__":
  launch(main)
