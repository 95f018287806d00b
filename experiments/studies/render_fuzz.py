"""Random hostile triangles: what the rasterizer promises of any input, checked by the thousand.

A set is a handful of faces of every kind: ordinary, without area, all in one place, huge, below a
pixel, off the image, behind the viewer, not finite. Many sets are rendered in one call of fixed
shapes, so that a hundred thousand take minutes.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from umr_jax.render import soft_rasterize, soft_silhouette

FACES, SIZE, TEXELS, CHANNELS = 10, (12, 20), 4, 2
SETS_PER_CALL = 128
# f(faces, textures, sigma, gamma) -> images.
Render = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
Gradients = tuple[jax.Array, jax.Array, jax.Array]  # images, and gradients on faces and textures
_SIGMAS = (1e-7, 1e-5, 1e-4, 1e-2)
_GAMMAS = (1e-7, 1e-4, 1e-2, 1.0)


@dataclasses.dataclass(frozen=True)
class Failure:
  """A promise that was broken."""

  call: int  # the seed of the call's sets, with the seed of the run
  mode: str
  promise: str
  sets: tuple[int, ...]  # which of the call's


def random_sets(rng: np.random.Generator, count: int) -> np.ndarray:
  """Triangle sets [count, FACES, 3, 3] float32, about half of all faces hostile in some way.

  Args:
    rng: the source of randomness.
    count: of sets.
  """
  corners = np.concatenate(
    [
      rng.uniform(-1.2, 1.2, (count, FACES, 1, 2)) + rng.normal(0, 0.4, (count, FACES, 3, 2)),
      rng.uniform(1.2, 6.0, (count, FACES, 3, 1)),
    ],
    axis=-1,
  )
  kind = rng.integers(0, 24, (count, FACES))
  size = 10.0 ** rng.uniform(-9, 9, (count, FACES, 1, 1))
  center = corners[:, :, :1]
  corners = _where(kind == 1, center, corners)  # a point
  on_line = center + rng.normal(size=(count, FACES, 3, 1)) * (corners[:, :, 1:2] - center)
  corners = _where(kind == 2, on_line, corners)
  twice = corners[:, :, [0, 0, 2]]
  corners = _where(kind == 3, twice, corners)  # two corners in one
  corners = _where(kind == 4, np.roll(corners, 1, axis=1), corners)  # coincident with a neighbour
  scaled = center + size * (corners - center)
  corners = _where(kind == 5, np.concatenate([scaled[..., :2], corners[..., 2:]], -1), corners)
  far_off = corners + np.array([1.0, -1.0, 0.0]) * size
  corners = _where(kind == 6, far_off, corners)
  depths = 10.0 ** rng.uniform(-30, 30, (count, FACES, 3))
  corners[..., 2] = np.where((kind == 7)[..., None], depths, corners[..., 2])
  at_pixels = np.round(corners[..., :2] * 10.0) / 10.0  # corners on pixel centres and edges
  corners[..., :2] = np.where((kind == 8)[..., None, None], at_pixels, corners[..., :2])
  poison = rng.choice([np.nan, np.inf, -np.inf, 1e38, -1e38], (count, FACES))
  place = rng.integers(0, 9, (count, FACES))
  hit = (kind >= 9) & (kind <= 10)
  flat = corners.reshape(count, FACES, 9)
  one = place[..., None]
  poisoned = np.where(hit[..., None], poison[..., None], np.take_along_axis(flat, one, axis=2))
  np.put_along_axis(flat, one, poisoned, axis=2)
  behind = np.where(rng.random((count, FACES)) < 0.5, 0.0, -2.0)
  flat[..., 2] = np.where(kind == 11, behind, flat[..., 2])
  return flat.reshape(corners.shape).astype(np.float32)


def _where(chosen: np.ndarray, new: np.ndarray, old: np.ndarray) -> np.ndarray:
  return np.where(chosen[..., None, None], new, old)


def rendered(sets: np.ndarray) -> np.ndarray:
  """Which faces [count, FACES] are to be rendered: finite, and in front of the viewer."""
  return np.isfinite(sets).all(axis=(-2, -1)) & (sets[..., 2] > 0.0).all(axis=-1)


def modes() -> dict[str, Render]:
  """The rendering modes that are checked, by name."""
  textured = functools.partial(soft_rasterize, image_size=SIZE, background=0.5)
  other = functools.partial(textured, dist_func="barycentric", aggr_alpha="sum", double_sided=False)
  return {
    "silhouette": lambda f, t, s, g: soft_silhouette(f, image_size=SIZE, sigma=s),
    "softmax": lambda f, t, s, g: textured(f, t, sigma=s, gamma=g),
    "hard": lambda f, t, s, g: textured(f, t, sigma=s, gamma=g, aggr_rgb="hard"),
    "barycentric": lambda f, t, s, g: other(f, t, sigma=s, gamma=g),
  }


def check(sets: int, *, seed: int) -> Iterator[tuple[int, list[Failure]]]:
  """Renders random sets and checks every promise.

  Args:
    sets: how many at least.
    seed: of all that is random.

  Yields:
    After each call, the sets rendered so far and the promises that it broke.
  """
  compiled = {
    name: jax.jit(functools.partial(_image_and_gradients, render))
    for name, render in modes().items()
  }
  names = list(compiled)
  for call in range(-(-sets // SETS_PER_CALL)):
    rng = np.random.default_rng((seed, call))
    name = names[call % len(names)]
    faces = random_sets(rng, SETS_PER_CALL)
    textures = rng.random((SETS_PER_CALL, FACES, TEXELS, CHANNELS), np.float32)
    sigma, gamma = (jnp.float32(rng.choice(values)) for values in (_SIGMAS, _GAMMAS))
    run = functools.partial(compiled[name], textures=textures, sigma=sigma, gamma=gamma)
    broken = _broken(run, faces)
    yield (
      (call + 1) * SETS_PER_CALL,
      [Failure(call, name, promise, tuple(which)) for promise, which in broken],
    )


def _image_and_gradients(
  render: Render, faces: jax.Array, textures: jax.Array, sigma: jax.Array, gamma: jax.Array
) -> Gradients:
  """Images [B, H, W(, C)] and the gradients of a weighted sum on faces and textures."""
  image, vjp = jax.vjp(lambda f, t: render(f, t, sigma, gamma), faces, textures)
  weights = jnp.cos(jnp.arange(image.size, dtype=jnp.float32)).reshape(image.shape)
  return image, *vjp(weights)


def _broken(
  run: Callable[[np.ndarray], Gradients], faces: np.ndarray
) -> Iterator[tuple[str, list[int]]]:
  """The promises that do not hold for these sets, and for which."""

  def sets_where(wrong: np.ndarray) -> list[int]:
    return np.flatnonzero(wrong.reshape(len(faces), -1).any(axis=1)).tolist()

  def report(promise: str, wrong: np.ndarray) -> Iterator[tuple[str, list[int]]]:
    if which := sets_where(wrong):
      yield promise, which

  first = [np.asarray(value) for value in run(faces)]
  for value, what in zip(
    first, ("image", "gradient on faces", "gradient on textures"), strict=True
  ):
    yield from report(f"{what} is finite", ~np.isfinite(value))
  for value, again in zip(first, run(faces), strict=True):
    same = value.view(np.uint32) == np.asarray(again).view(np.uint32)
    yield from report("equal inputs give equal bits", ~same)
  there = rendered(faces)
  yield from report(
    "no gradient on what is not rendered", (first[1] != 0.0) & ~there[..., None, None]
  )
  # In the place of what is not rendered, a face behind the viewer: nothing may change.
  hidden = np.where(there[..., None, None], faces, np.float32(-1.0))
  for value, without in zip(first, run(hidden), strict=True):
    same = value.view(np.uint32) == np.asarray(without).view(np.uint32)
    yield from report("what is not rendered changes nothing", ~same)
