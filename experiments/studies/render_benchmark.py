"""How fast the rasterizer is, in numbers that hold on a noisy machine.

Every case is timed in turns with a yardstick, a product of two 2048 x 2048 float32 matrices, in a
process of its own: ratios of medians can be compared between machines and days, milliseconds
cannot, and the peak memory is the case's.
"""

import concurrent.futures
import dataclasses
import functools
import itertools
import multiprocessing
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies import render_accuracy
from umr_jax.geometry.icosphere import icosphere
from umr_jax.render import soft_rasterize, soft_silhouette
from umr_jax.render.binning import Grid, bin_faces
from umr_jax.render.pairs import Settings, blur_radius, pairs_of
from umr_jax.render.rows import Rows, over_rows

MODES = ("silhouette", "rgb")
_YARDSTICK = 2048
_TEXELS = 36
_LEVELS = {20 * 4**level: level for level in range(6)}

Timed = Callable[[], object]  # what is timed; it returns arrays
Line = dict[str, str | int | float | bool | None]  # of the benchmark's output


@dataclasses.dataclass(frozen=True)
class Case:
  """One workload."""

  image_size: int
  faces: int
  batch: int
  sigma: float
  mode: str  # silhouette | rgb: three channels from 6 x 6 texels

  @property
  def name(self) -> str:
    """A short name, unique among cases."""
    return f"{self.mode}-{self.image_size}px-{self.faces}f-b{self.batch}-s{self.sigma:g}"


def cases(
  *,
  image_sizes: Sequence[int] = (64, 128, 256),
  faces: Sequence[int] = (320, 1280, 5120),
  batches: Sequence[int] = (1, 16),
  sigmas: Sequence[float] = (1e-5, 1e-4),
  modes: Sequence[str] = MODES,
) -> Iterator[Case]:
  """Every combination.

  Args:
    image_sizes: pixels a side.
    faces: of a mesh.
    batches: images at a time.
    sigmas: softness of outlines.
    modes: of `MODES`.

  Raises:
    ValueError: for another mode.
  """
  if unknown := sorted(set(modes) - set(MODES)):
    raise ValueError(f"found modes {', '.join(unknown)}; expected some of {', '.join(MODES)}")
  for values in itertools.product(image_sizes, faces, batches, sigmas, modes):
    yield Case(*values)


def scene(faces: int, batch: int) -> np.ndarray:
  """Bent, bumpy spheres under as many cameras: projected faces [batch, faces, 3, 3] float32.

  Args:
    faces: of a mesh.
    batch: images at a time.

  Raises:
    ValueError: unless `faces` is 20 times a power of four, the faces of an icosphere.
  """
  if faces not in _LEVELS:
    raise ValueError(f"found {faces} faces; expected one of {', '.join(map(str, _LEVELS))}")
  sphere, triangles = icosphere(_LEVELS[faces])
  rng = np.random.default_rng(0)
  meshes = []
  for _ in range(batch):
    direction, phase = rng.normal(size=(4, 3)), rng.uniform(0.0, 2.0 * np.pi, 4)
    bumps = 1.0 + 0.08 * np.sin(4.0 * sphere @ direction.T + phase).sum(axis=-1, keepdims=True)
    points = sphere * bumps * np.array([1.0, 0.55, 0.7])
    points[:, 2] += 0.35 * points[:, 0] ** 2
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    meshes.append(0.62 * points @ rotation.T + np.array([0.0, 0.0, 2.8]))
  return np.stack(meshes)[:, triangles].astype(np.float32)


def read_mesh(path: str, batch: int) -> np.ndarray:
  """Projected faces from a file with `vertices` [B, V, 3] in image space and `faces` [F, 3].

  Args:
    path: of the file.
    batch: images at a time.
  """
  with np.load(path) as file:
    found = file["vertices"][:, file["faces"]].astype(np.float32)
  return found[np.arange(batch) % len(found)]


def measure(
  case: Case, *, repeats: int = 15, mesh: str = "", peer: str = "", compare: bool = False
) -> Line:
  """Times one case in this process.

  Args:
    case: the workload.
    repeats: rounds; every round runs the yardstick, forward, and forward with gradient once, and
      for colour the silhouette's two as well, so that their ratio is of times side by side.
    mesh: a file for `read_mesh`, in place of `scene`.
    peer: a module of the same functions by another library, timed in the same rounds.
    compare: whether to add the `render_accuracy.errors` of the first image.

  Returns:
    One line of the benchmark; medians in milliseconds.
  """
  corners = jnp.asarray(read_mesh(mesh, case.batch) if mesh else scene(case.faces, case.batch))
  case = dataclasses.replace(case, faces=corners.shape[1])
  side = jnp.asarray(np.random.default_rng(1).random((_YARDSTICK, _YARDSTICK)), jnp.float32)
  product = jax.jit(jnp.dot)
  forward, both = _functions(case)
  timed: dict[str, Timed] = {
    "yardstick_ms": lambda: product(side, side),
    "forward_ms": lambda: forward(corners),
    "forward_backward_ms": lambda: both(corners),
  }
  if case.mode == "rgb":
    silhouette, outlined = _functions(dataclasses.replace(case, mode="silhouette"))
    timed["silhouette_forward_ms"] = lambda: silhouette(corners)
    timed["silhouette_forward_backward_ms"] = lambda: outlined(corners)
  if peer:
    from experiments.studies import render_peers

    timed |= render_peers.functions(peer, case, np.asarray(corners))
  times = interleaved(timed, repeats)
  pairs = _count_pairs(corners, case)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return {
    "case": case.name,
    "image_size": case.image_size,
    "faces": case.faces,
    "batch": case.batch,
    "sigma": case.sigma,
    "mode": case.mode,
    **{name: round(value, 3) for name, value in times.items()},
    "forward_ratio": round(times["forward_ms"] / times["yardstick_ms"], 4),
    "forward_backward_ratio": round(times["forward_backward_ms"] / times["yardstick_ms"], 4),
    **_against_silhouette(times),
    "renders_per_s": round(1e3 * case.batch / times["forward_ms"], 1),
    "pairs_per_s": round(1e3 * pairs / times["forward_ms"]),
    **surroundings(peak),
    **(_compared(case, corners) if compare else {}),
  }


def surroundings(peak: int) -> Line:
  """The process in a line: its peak resident size (ru_maxrss), device and versions.

  Beside it the peak of one device's memory, which is None where the backend does not report it: a
  CPU has no memory of its own.
  """
  reported = (device.memory_stats() or {} for device in jax.local_devices())
  held = [stats["peak_bytes_in_use"] for stats in reported if "peak_bytes_in_use" in stats]
  return {
    # Kilobytes on Linux, bytes on macOS.
    "peak_rss_mb": round(peak / (2**20 if sys.platform == "darwin" else 2**10)),
    "peak_device_mb": round(max(held) / 2**20) if held else None,
    "device": f"{jax.devices()[0].device_kind} x{jax.device_count()}",
    "versions": ", ".join(
      (f"jax {jax.__version__}", f"numpy {np.__version__}", f"python {platform.python_version()}")
    ),
  }


def _compared(case: Case, corners: jax.Array) -> dict[str, float]:
  textures = np.random.default_rng(2).random((case.faces, _TEXELS, 3))
  found = render_accuracy.errors(
    np.asarray(corners[0]), textures, image_size=case.image_size, sigma=case.sigma
  )
  return {name: float(f"{value:.3g}") for name, value in found.items()}


def measure_alone(
  case: Case, *, repeats: int = 15, mesh: str = "", peer: str = "", compare: bool = False
) -> Line:
  """`measure` in a fresh process, whose peak memory is the case's own.

  Args:
    case: the workload.
    repeats: as of `measure`.
    mesh: as of `measure`.
    peer: as of `measure`.
    compare: as of `measure`.
  """
  work = functools.partial(measure, case, repeats=repeats, mesh=mesh, peer=peer, compare=compare)
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
    return pool.submit(work).result()


def _functions(case: Case) -> tuple[Callable[[jax.Array], object], Callable[[jax.Array], object]]:
  """The case's forward pass, and the same with gradients for a fixed cotangent, jitted."""
  rng = np.random.default_rng(2)
  shape = (case.batch, case.image_size, case.image_size)
  if case.mode == "silhouette":
    render = functools.partial(soft_silhouette, image_size=case.image_size, sigma=case.sigma)
    cotangent = jnp.asarray(rng.standard_normal(shape), jnp.float32)

    def with_gradient(corners: jax.Array) -> object:
      image, vjp = jax.vjp(render, corners)
      return image, vjp(cotangent)

    return jax.jit(render), jax.jit(with_gradient)

  textures = jnp.asarray(rng.random((case.batch, case.faces, _TEXELS, 3)), jnp.float32)
  cotangent = jnp.asarray(rng.standard_normal((*shape, 4)), jnp.float32)
  textured = functools.partial(soft_rasterize, image_size=case.image_size, sigma=case.sigma)
  textured_forward = jax.jit(textured)

  @jax.jit
  def textured_with_gradient(
    corners: jax.Array, textures: jax.Array, cotangent: jax.Array
  ) -> object:
    image, vjp = jax.vjp(textured, corners, textures)
    return image, vjp(cotangent)

  return lambda c: textured_forward(c, textures), lambda c: textured_with_gradient(
    c, textures, cotangent
  )


def _against_silhouette(times: dict[str, float]) -> dict[str, float]:
  """How many times as long as the silhouette colour takes, where that was timed."""
  return {
    f"{name}_over_silhouette": round(times[f"{name}_ms"] / times[f"silhouette_{name}_ms"], 2)
    for name in ("forward", "forward_backward")
    if f"silhouette_{name}_ms" in times
  }


def interleaved(timed: dict[str, Timed], repeats: int) -> dict[str, float]:
  """The median time of each, in milliseconds; all are run in turns, and once before, to compile.

  Args:
    timed: functions of nothing, by name.
    repeats: runs of each.
  """
  spent: dict[str, list[float]] = {name: [] for name in timed}
  for name in timed:
    jax.block_until_ready(timed[name]())
  for _ in range(repeats):
    for name, function in timed.items():
      began = time.perf_counter()
      jax.block_until_ready(function())
      spent[name].append(1e3 * (time.perf_counter() - began))
  return {name: statistics.median(values) for name, values in spent.items()}


def _count_pairs(corners: jax.Array, case: Case) -> float:
  """How many (pixel, face) pairs lie in the support of the blur."""
  settings = Settings(Grid(case.image_size, case.image_size))

  @jax.jit
  def count(corners: jax.Array) -> jax.Array:
    sigma = jnp.float32(case.sigma)
    radius = blur_radius(sigma, settings.dist_eps)
    bins = bin_faces(corners, radius, settings.grid)

    def body(rows: Rows, total: jax.Array) -> jax.Array:
      return total + jnp.sum(pairs_of(rows, settings, sigma, radius).in_support)

    return over_rows(bins, settings.grid, 16384, body, jnp.zeros((), jnp.int32))

  return float(count(corners))
