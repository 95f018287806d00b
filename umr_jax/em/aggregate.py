"""Selective aggregation: which training images the M-step averages, and their sums.

Three passes over the training set, each a monoid (`empty`, `update` with a batch's measurement,
`merge`, `finalize`), so that the result does not depend on how the images were cut into batches,
devices or hosts: the first finds the exemplars, the second ranks every image by its likeness to
them, the third sums over the k most alike.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np

from umr_jax.em.measure import Measurement

# Bytes of measurements that an M-step keeps rather than compute three times.
_MEMORY = 1 << 30


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Soft intersection over union of [..., H, W] silhouettes."""
  both = (a * b).sum((-2, -1))
  return both / np.maximum((a + b - a * b).sum((-2, -1)), 1e-6)


@dataclasses.dataclass(frozen=True, eq=False)
class Exemplars:
  """First pass: the image with the best silhouette, and the one with the best texture.

  Ties go to the lower index.

  Source: Li et al. 2020, supplementary 2.1.
  """

  # (score, index, what later images are compared with); lower scores are better.
  shape: tuple[float, int, np.ndarray] = (np.inf, -1, np.zeros(0))
  parts: tuple[float, int, np.ndarray] = (np.inf, -1, np.zeros(0))

  def update(self, measured: Measurement) -> "Exemplars":
    """With one more batch."""
    best = self
    for row in range(len(measured.index)):
      index = int(measured.index[row])
      shape = (-float(measured.silhouette_iou[row]), index, measured.silhouette[row])
      parts = best.parts
      if measured.uv_parts is not None and measured.uv_parts[row].any():
        parts = (float(measured.texture_distance[row]), index, measured.uv_parts[row])
      best = best.merge(Exemplars(shape, parts))
    return best

  def merge(self, other: "Exemplars") -> "Exemplars":
    """The better of two, for each criterion."""
    return Exemplars(
      min(self.shape, other.shape, key=lambda found: found[:2]),
      min(self.parts, other.parts, key=lambda found: found[:2]),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Ranking:
  """Second pass: how unlike the exemplars every image is; lower is more alike."""

  index: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
  shape: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
  parts: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))

  def update(self, measured: Measurement, exemplars: Exemplars) -> "Ranking":
    """With one more batch.

    Shapes are compared by the IoU of rendered silhouettes, which asks for a like viewpoint as well;
    part maps by their L2 distance in UV space.
    """
    shape = -_iou(measured.silhouette, exemplars.shape[2])
    parts = np.full(len(shape), np.inf)
    if measured.uv_parts is not None and exemplars.parts[1] >= 0:
      gap = measured.uv_parts - exemplars.parts[2]
      known = measured.uv_parts.any((1, 2, 3))  # an image may lack its part map
      parts = np.where(known, np.sqrt(np.square(gap, dtype=np.float64).sum((1, 2, 3))), np.inf)
    return self.merge(Ranking(np.asarray(measured.index), shape, parts))

  def merge(self, other: "Ranking") -> "Ranking":
    """Both sets of images."""
    return Ranking(
      np.concatenate([self.index, other.index]),
      np.concatenate([self.shape, other.shape]),
      np.concatenate([self.parts, other.parts]),
    )

  def finalize(self, k: int) -> tuple[frozenset[int], frozenset[int]]:
    """The sets Q and U: the k images most like each exemplar, dataset-wide; ties by index."""

    def top(scores: np.ndarray) -> frozenset[int]:
      usable = np.flatnonzero(np.isfinite(scores))
      order = usable[np.lexsort((self.index[usable], scores[usable]))]
      return frozenset(int(i) for i in self.index[order[:k]])

    return top(self.shape), top(self.parts)


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
  """Third pass: the sums that the M-step needs, in float64."""

  offsets: np.ndarray | float = 0.0  # [Vh, 3]
  num_offsets: int = 0
  uv_parts: np.ndarray | float = 0.0  # [Hu, Wu, P + 1]
  num_uv_parts: int = 0

  def update(
    self, measured: Measurement, chosen: tuple[frozenset[int], frozenset[int]]
  ) -> "Statistics":
    """With the chosen images (Q, U) of one more batch."""
    in_q, in_u = (np.isin(measured.index, sorted(members)) for members in chosen)
    new = Statistics(
      measured.half_offsets[in_q].sum(0, dtype=np.float64),
      int(in_q.sum()),
      0.0 if measured.uv_parts is None else measured.uv_parts[in_u].sum(0, dtype=np.float64),
      0 if measured.uv_parts is None else int(in_u.sum()),
    )
    return self.merge(new)

  def merge(self, other: "Statistics") -> "Statistics":
    """The sums of both."""
    return Statistics(
      self.offsets + other.offsets,
      self.num_offsets + other.num_offsets,
      self.uv_parts + other.uv_parts,
      self.num_uv_parts + other.num_uv_parts,
    )

  def finalize(self) -> tuple[np.ndarray, np.ndarray | None]:
    """The mean offset of Q [Vh, 3] and the mean part map of U [Hu, Wu, P + 1], or None.

    An image counts where it shows a point of the map, and not where it does not.
    """
    if not self.num_offsets:
      raise ValueError("The M-step saw no image: the set Q is empty.")
    mean_parts = _shares(np.asarray(self.uv_parts)) if self.num_uv_parts else None
    mean_offset = np.asarray(self.offsets / self.num_offsets, np.float32)
    return mean_offset, None if mean_parts is None else np.asarray(mean_parts, np.float32)


def _shares(sums: np.ndarray) -> np.ndarray:
  """Sums of part probabilities [Hu, Wu, P + 1] as shares; background where nothing is known."""
  total = sums.sum(axis=-1, keepdims=True)
  background = np.eye(sums.shape[-1])[0]
  return np.where(total > 1e-6, sums / np.maximum(total, 1e-6), background)


def aggregate(measurements: Callable[[], Iterable[Measurement]], *, k: int) -> Statistics:
  """The sums over the sets Q and U.

  Args:
    measurements: a pass over the data set, batch by batch; the same at every call. It is called
      once where all of them fit into memory, and three times where not.
    k: the size of Q and of U.

  Source: Li et al. 2020, supplementary 2.1.
  """
  passes = _Passes(measurements, _MEMORY)
  exemplars, ranking, statistics = Exemplars(), Ranking(), Statistics()
  for measured in passes():
    exemplars = exemplars.update(measured)
  for measured in passes():
    ranking = ranking.update(measured, exemplars)
  chosen = ranking.finalize(k)
  for measured in passes():
    statistics = statistics.update(measured, chosen)
  return statistics


class _Passes:
  """Passes over measurements, from memory after the first one if there is room."""

  def __init__(self, measurements: Callable[[], Iterable[Measurement]], room: int):
    self._measurements = measurements
    self._room = room
    self._kept: list[Measurement] | None = None

  def __call__(self) -> Iterator[Measurement]:
    if self._kept is not None:
      yield from self._kept
      return
    kept: list[Measurement] = []
    for measured in self._measurements():
      self._room -= sum(leaf.nbytes for leaf in jax.tree.leaves(measured))
      if self._room >= 0:
        kept.append(measured)
      else:
        kept.clear()
      yield measured
    if self._room >= 0:
      self._kept = kept
