"""Strict promotion, four fake devices, quick compiling and a cache for every test."""

import gc
import importlib.metadata
import os
import pathlib
import tempfile

# Before the first import of jax: one process plays four devices, and what is compiled runs once or
# twice, so that compiling is what takes time. It takes a third without optimizations and fusions
# (`optimized` is for what runs for long).
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
  [
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=4",
    # Of jaxlib 0.12 it is no flag.
    *["--xla_cpu_use_fusion_emitters=false"]
    * importlib.metadata.version("jaxlib").startswith("0.10."),
  ]
)
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(tempfile.gettempdir()) / "umr_jax_test_cache")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax
import numpy as np
import pytest
from jax import monitoring

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

GOLDEN = pathlib.Path(__file__).parent / "golden"
# Linux allows a process 65530 memory maps, and a compiled training step holds thousands of them.
_MAPS = pathlib.Path("/proc/self/maps")
_MANY_MAPS = 30_000
# Counting them takes as long as a short test: it is done after so many seconds of compiling.
_UNCOUNTED = 0.5
_compiling: list[float] = []


def _note_compiling(event: str, seconds: float, **_: object) -> None:
  if "compile" in event:
    _compiling.append(seconds)


monitoring.register_event_duration_secs_listener(_note_compiling)


def pytest_collection_finish() -> None:
  """Leaves what was imported out of garbage collection, and looks for garbage less often.

  Tracing makes so many objects that looking through them took up to a tenth of the time.
  """
  gc.collect()
  gc.freeze()
  gc.set_threshold(10_000)


@pytest.fixture(autouse=True)
def few_memory_maps():
  """Forgets compiled functions before the system refuses maps, which would abort the process."""
  yield
  if sum(_compiling) < _UNCOUNTED:
    return
  _compiling.clear()
  if _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > _MANY_MAPS:
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def optimized():
  """Optimizes what a test compiles: for programs that run for much longer than they compile."""
  before = jax.config.values["jax_disable_most_optimizations"]
  jax.config.update("jax_disable_most_optimizations", False)
  yield
  jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="session")
def golden_geometry():
  """Values of the released geometry and loss code, run in float64 (tests/golden/README.md)."""
  return dict(np.load(GOLDEN / "geometry_losses.npz"))


@pytest.fixture
def rng():
  return np.random.default_rng(0)
