"""The renderer is useful alone: importing it loads nothing heavy."""

import subprocess
import sys

HEAVY = ("flax", "orbax", "optax", "tensorflow_datasets", "trimesh", "scipy.ndimage", "PIL")


def test_importing_the_renderer_loads_no_heavy_package():
  program = (
    "import sys, umr_jax.render, umr_jax.render.reference;"
    f"print([name for name in {HEAVY} if name in sys.modules])"
  )
  result = subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True, check=True
  )
  assert result.stdout.strip() == "[]"
