"""Selective aggregation: the sets Q and U of training images, and the sums that the M-step needs.

Q is the set over which equation 4 averages shape offsets, U the one over which equation 1 averages
part maps. Three passes over the training set, each a monoid (`update` with a batch's statistics,
and `merge`), so that the result does not depend on how the images were divided into batches,
devices or hosts: the first finds the exemplars, the second ranks every image by its similarity to
them, the third sums over the k most similar. The last two end with `finalize`.

Source: Li et al. 2020, equations 1 and 4, supplementary 2.1.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from umr_jax.em.image_statistics import ImageStatistics

# Bytes of image statistics that an M-step keeps rather than compute three times.
_MEMORY = 1 << 30


def _iou(a: Float[np.ndarray, "N H W"], b: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "N"]:
  """Soft intersection over union of silhouettes with one."""
  both = (a * b).sum((-2, -1))
  return both / np.maximum((a + b - a * b).sum((-2, -1)), 1e-6)


@dataclasses.dataclass(frozen=True, eq=False)
class Exemplars:
  """First pass: the images of highest silhouette IoU, for Q, and lowest texture distance, for U.

  Ties go to the lower index.
  """

  # (score, index, the map that other images are compared with); lower scores are better.
  shape: tuple[float, int, np.ndarray] = (np.inf, -1, np.zeros(0))
  parts: tuple[float, int, np.ndarray] = (np.inf, -1, np.zeros(0))

  def update(self, measured: ImageStatistics) -> "Exemplars":
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
  """Second pass: the distance of every image from the exemplars."""

  index: Int[np.ndarray, "N"] = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
  shape: Float[np.ndarray, "N"] = dataclasses.field(default_factory=lambda: np.zeros(0))
  parts: Float[np.ndarray, "N"] = dataclasses.field(default_factory=lambda: np.zeros(0))

  def update(
    self, measured: ImageStatistics, exemplars: Exemplars, *, read: Bool[np.ndarray, "Hu Wu"]
  ) -> "Ranking":
    """With one more batch.

    Args:
      measured: the batch's statistics.
      exemplars: of all images.
      read: the pixels of a UV map whose values reach the mesh. Elsewhere, which with a symmetric
        texture is half of the map, the texture flow is free and its parts are noise.

    Returns:
      The ranking. Shapes are compared by the IoU of rendered silhouettes, which depends on the
      viewpoint as well; semantic UV maps by their L2 distance where they are read.
    """
    shape = -_iou(measured.silhouette, exemplars.shape[2])
    parts = np.full(len(shape), np.inf)
    if measured.uv_parts is not None and exemplars.parts[1] >= 0:
      gap = (measured.uv_parts - exemplars.parts[2])[:, read]
      known = measured.uv_parts.any((1, 2, 3))  # an image may lack its part map
      parts = np.where(known, np.sqrt(np.square(gap, dtype=np.float64).sum((1, 2))), np.inf)
    return self.merge(Ranking(np.asarray(measured.index), shape, parts))

  def merge(self, other: "Ranking") -> "Ranking":
    """Both sets of images."""
    return Ranking(
      np.concatenate([self.index, other.index]),
      np.concatenate([self.shape, other.shape]),
      np.concatenate([self.parts, other.parts]),
    )

  def finalize(self, k: int) -> tuple[frozenset[int], frozenset[int]]:
    """The sets Q and U: the k images nearest to each exemplar, dataset-wide; ties by index."""

    def top(scores: np.ndarray) -> frozenset[int]:
      usable = np.flatnonzero(np.isfinite(scores))
      order = usable[np.lexsort((self.index[usable], scores[usable]))]
      return frozenset(int(i) for i in self.index[order[:k]])

    return top(self.shape), top(self.parts)


@dataclasses.dataclass(frozen=True, eq=False)
class SufficientStatistics:
  """Third pass: the sums that the M-step needs, in float64."""

  offsets: np.ndarray | float = 0.0  # [Vh, 3]
  num_offsets: int = 0
  uv_parts: np.ndarray | float = 0.0  # [Hu, Wu, P + 1]
  num_uv_parts: int = 0

  def update(
    self, measured: ImageStatistics, chosen: tuple[frozenset[int], frozenset[int]]
  ) -> "SufficientStatistics":
    """With the chosen images of one more batch.

    Args:
      measured: the batch's statistics.
      chosen: the sets Q and U.
    """
    in_q, in_u = (np.isin(measured.index, sorted(members)) for members in chosen)
    new = SufficientStatistics(
      measured.half_offsets[in_q].sum(0, dtype=np.float64),
      int(in_q.sum()),
      0.0 if measured.uv_parts is None else measured.uv_parts[in_u].sum(0, dtype=np.float64),
      0 if measured.uv_parts is None else int(in_u.sum()),
    )
    return self.merge(new)

  def merge(self, other: "SufficientStatistics") -> "SufficientStatistics":
    """The sums of both."""
    return SufficientStatistics(
      self.offsets + other.offsets,
      self.num_offsets + other.num_offsets,
      self.uv_parts + other.uv_parts,
      self.num_uv_parts + other.num_uv_parts,
    )

  def finalize(self) -> tuple[np.ndarray, np.ndarray | None]:
    """The mean offset of Q [Vh, 3] and the mean part map of U [Hu, Wu, P + 1], or None.

    Of a point of the map, the mean is over the images that show it.
    """
    if not self.num_offsets:
      raise ValueError("The M-step has no image: the set Q is empty.")
    mean_parts = _shares(np.asarray(self.uv_parts)) if self.num_uv_parts else None
    mean_offset = np.asarray(self.offsets / self.num_offsets, np.float32)
    return mean_offset, None if mean_parts is None else np.asarray(mean_parts, np.float32)


def _shares(sums: np.ndarray) -> np.ndarray:
  """Sums of part probabilities [Hu, Wu, P + 1] as shares; background where nothing is known."""
  total = sums.sum(axis=-1, keepdims=True)
  background = np.eye(sums.shape[-1])[0]
  return np.where(total > 1e-6, sums / np.maximum(total, 1e-6), background)


def aggregate(
  image_statistics: Callable[[], Iterable[ImageStatistics]],
  *,
  k: int,
  read: Bool[np.ndarray, "Hu Wu"],
) -> SufficientStatistics:
  """The sums over the sets Q and U.

  Args:
    image_statistics: a pass over the data set, batch by batch; the same at every call. It runs
      once where all of them fit into memory, and three times where not.
    k: the size of Q and of U.
    read: the pixels of a UV map whose values reach the mesh (`models.assemble.read_uv_pixels`).

  Source: Li et al. 2020, supplementary 2.1. Departs: k is of our choice, the paper names none; part
    maps are compared where the mesh reads them.
  """
  passes = _Passes(image_statistics, _MEMORY)
  exemplars, ranking, statistics = Exemplars(), Ranking(), SufficientStatistics()
  for measured in passes():
    exemplars = exemplars.update(measured)
  for measured in passes():
    ranking = ranking.update(measured, exemplars, read=read)
  chosen = ranking.finalize(k)
  for measured in passes():
    statistics = statistics.update(measured, chosen)
  return statistics


class _Passes:
  """Passes over image statistics, from memory after the first one if there is room."""

  def __init__(self, compute: Callable[[], Iterable[ImageStatistics]], room: int):
    self._compute = compute
    self._room = room
    self._kept: list[ImageStatistics] | None = None

  def __call__(self) -> Iterator[ImageStatistics]:
    if self._kept is not None:
      yield from self._kept
      return
    kept: list[ImageStatistics] = []
    for measured in self._compute():
      self._room -= sum(leaf.nbytes for leaf in jax.tree.leaves(measured))
      if self._room >= 0:
        kept.append(measured)
      else:
        kept.clear()
      yield measured
    if self._room >= 0:
      self._kept = kept
