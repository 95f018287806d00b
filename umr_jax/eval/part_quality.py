"""How good part maps are that nobody named: against true parts, keypoints, and their mirror image.

Parts that were discovered have no names and no order: no measure here depends on either.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment

from umr_jax.data.dataset import Dataset, Split
from umr_jax.data.part_store import PartStore
from umr_jax.data.transforms import crop
from umr_jax.eval.summary import summarize
from umr_jax.geometry.sampling import axis_centers
from umr_jax.types import Report, checked

# Of the penalty on the regression's coefficients, in units of one image: it only keeps parts that
# never move from making the fit ill-posed.
_RIDGE = 1e-2


Labels = tuple[np.ndarray, np.ndarray]  # [S, S] each: of the canonical map, true


def part_ious(learned: Sequence[Labels | None], measured: Sequence[Labels | None]) -> np.ndarray:
  """Part IoU of each image whose parts are known.

  Canonical parts have no names: each is matched with at most one true part, so that the overlap
  over training images is largest.

  Args:
    learned: of the training images that the matching is fixed on.
    measured: of the images to measure.

  Returns:
    [N], the mean over an image's true parts; empty where no image has parts.
  """
  first, second = ([pair for pair in pairs if pair is not None] for pairs in (learned, measured))
  if not first or not second:
    return np.zeros(0)
  parts = max(int(max(a.max(), b.max())) for a, b in [*first, *second])
  found, true = (np.stack(column).astype(np.int64) for column in zip(*first, strict=True))
  match = match_parts(found, true, parts=parts)
  return np.array([mean_part_iou(match[a], b.astype(np.int64)) for a, b in second])


@checked
def match_parts(
  found: Int[np.ndarray, "N S S"], true: Int[np.ndarray, "N S S"], *, parts: int
) -> Int[np.ndarray, "P1"]:
  """For each canonical part the true one that it stands for; 0, background, for the background.

  Args:
    found: labels from 0, background, to `parts`.
    true: likewise.
    parts: P.
  """
  both = np.bincount((found * (parts + 1) + true).ravel(), minlength=(parts + 1) ** 2)
  both = both.reshape(parts + 1, parts + 1).astype(np.float64)
  union = both.sum(axis=1, keepdims=True) + both.sum(axis=0, keepdims=True) - both
  overlap = both / np.maximum(union, 1.0)
  rows, columns = linear_sum_assignment(-overlap[1:, 1:])
  match = np.zeros(parts + 1, np.int64)
  match[rows + 1] = columns + 1
  return match


@checked
def mean_part_iou(found: Int[np.ndarray, "S S"], true: Int[np.ndarray, "S S"]) -> float:
  """The mean IoU over the parts that an image truly shows; 0 where it shows none.

  Args:
    found: labels, 0 for background.
    true: likewise.
  """
  shown = [part for part in np.unique(true) if part > 0]
  ious = [
    np.count_nonzero((found == part) & (true == part))
    / np.count_nonzero((found == part) | (true == part))
    for part in shown
  ]
  return float(np.mean(ious)) if ious else 0.0


@checked
def part_labels(probs: Float[np.ndarray, "N S S P1"]) -> Int[np.ndarray, "N S S"]:
  """The most probable part of each pixel, 0 for background."""
  return np.argmax(probs, axis=-1).astype(np.int64)


@checked
def normalized_mutual_information(
  found: Int[np.ndarray, "N S S"], true: Int[np.ndarray, "N S S"]
) -> float:
  """How much information found parts hold of true ones, where neither is background.

  Args:
    found: labels, 0 for background.
    true: likewise.

  Returns:
    The mutual information over the mean of both entropies: 1 for equal parts whatever their names,
    0 for independent ones, and where nothing is both found and true.
  """
  inside = (found > 0) & (true > 0)
  rows, columns = found[inside], true[inside]
  if not rows.size:
    return 0.0
  width = int(columns.max()) + 1
  table = np.bincount(rows * width + columns, minlength=(int(rows.max()) + 1) * width)
  joint = table.reshape(-1, width) / rows.size
  first, second = joint.sum(axis=1), joint.sum(axis=0)
  entropy = _entropy(first) + _entropy(second)
  information = entropy - _entropy(joint.ravel())
  return float(2.0 * information / entropy) if entropy > 0.0 else 0.0


def _entropy(p: np.ndarray) -> float:
  p = p[p > 0.0]
  return float(-(p * np.log(p)).sum())


@checked
def matched_part_ious(
  found: Int[np.ndarray, "N S S"], true: Int[np.ndarray, "N S S"]
) -> Float[np.ndarray, "N"]:
  """Mean part IoU of each image, when each found part stands for at most one true part.

  The match is the one of the largest overlap over all images, as in `match_parts`.

  Args:
    found: labels, 0 for background.
    true: likewise.
  """
  parts = int(max(found.max(), true.max()))
  match = match_parts(found, true, parts=parts)
  return np.array([mean_part_iou(match[f], t) for f, t in zip(found, true, strict=True)])


@checked
def part_centers(
  probs: Float[np.ndarray, "N S S P1"],
) -> tuple[Float[np.ndarray, "N P 2"], Bool[np.ndarray, "N P"]]:
  """Centres of mass of the parts in [-1, 1] of the crop, x and y; and which parts are there.

  The centre of a part that an image does not show is the mean centre of all parts that it does.
  """
  size = probs.shape[1]
  place = axis_centers(size)
  parts = probs[..., 1:].astype(np.float64)
  mass = parts.sum(axis=(1, 2))
  there = mass >= 1.0
  x = np.einsum("nhwp,w->np", parts, place) / np.maximum(mass, 1e-9)
  y = np.einsum("nhwp,h->np", parts, place) / np.maximum(mass, 1e-9)
  centers = np.stack([x, y], axis=-1)
  count = np.maximum(there.sum(axis=1), 1)[:, None]
  middle = np.where(there[..., None], centers, 0.0).sum(axis=1) / count
  return np.where(there[..., None], centers, middle[:, None]), there


@checked
def landmark_regression_error(
  train_centers: Float[np.ndarray, "M P 2"],
  train_keypoints: Float[np.ndarray, "M K 3"],
  test_centers: Float[np.ndarray, "N P 2"],
  test_keypoints: Float[np.ndarray, "N K 3"],
  *,
  test_lengths: Float[np.ndarray, "N"],
) -> Float[np.ndarray, "N"]:
  """How far a linear map from part centres to keypoints misses the keypoints of unseen images.

  Args:
    train_centers: of the images that the map is fitted to.
    train_keypoints: x, y, visible; only visible ones count.
    test_centers: of the images to evaluate.
    test_keypoints: likewise.
    test_lengths: the longer side of each test object's box, in the keypoints' unit.

  Returns:
    Each test image's mean distance over its visible keypoints, in lengths of the object; NaN for an
    image without any.

  Source: Hung et al. 2019, section 4 (landmark regression). Departs: in lengths of the object's
    box, since a category in general has no eyes whose distance could be the unit.
  """
  known, unseen = (_design(centers) for centers in (train_centers, test_centers))
  misses = np.full(test_keypoints.shape[:2], np.nan)
  for k in range(train_keypoints.shape[1]):
    rows = train_keypoints[:, k, 2] > 0
    if not rows.any():
      continue
    a, b = known[rows], train_keypoints[rows, k, :2].astype(np.float64)
    penalty = _RIDGE * np.eye(a.shape[1])
    penalty[0, 0] = 0.0
    solution = np.linalg.lstsq(a.T @ a + penalty, a.T @ b, rcond=None)[0]
    gap = np.linalg.norm(unseen @ solution - test_keypoints[:, k, :2], axis=-1)
    misses[:, k] = np.where(test_keypoints[:, k, 2] > 0, gap / test_lengths, np.nan)
  counted = np.isfinite(misses)
  total = np.where(counted, misses, 0.0).sum(axis=1)
  return np.where(counted.any(axis=1), total / np.maximum(counted.sum(axis=1), 1), np.nan)


def _design(centers: np.ndarray) -> np.ndarray:
  """[1, centres] of each image, for a linear fit with an intercept."""
  flat = centers.reshape(len(centers), -1).astype(np.float64)
  return np.concatenate([np.ones((len(flat), 1)), flat], axis=1)


def part_report(dataset: Dataset, store: PartStore, *, seed: int) -> Report:
  """All measures of discovered parts by a data set's own parts and keypoints.

  Args:
    dataset: with its own part maps and keypoints, where it has any.
    store: the discovered maps of its images.
    seed: of the bootstrap.

  Returns:
    Of the test images: `landmark_error` (lengths of the object) with keypoints; `discovered_iou`
    and `discovered_nmi` with true parts; intervals as KEY_ci where a value is an average of images.
    Without test images, or without truth, what is left: `mirror_agreement`, the share of pixels
    that get the same part when an image is mirrored, where it was measured.
  """
  known, tested = (_Annotated(dataset.splits[name], store) for name in ("train", "test"))
  values: dict[str, np.ndarray] = {}
  report: Report = {}
  if np.isfinite(store.mirror_agreement):
    report["mirror_agreement"] = store.mirror_agreement
  if tested.rows and dataset.keypoint_names:
    error = landmark_regression_error(
      part_centers(known.found)[0],
      known.keypoints,
      part_centers(tested.found)[0],
      tested.keypoints,
      test_lengths=tested.lengths,
    )
    values["landmark_error"] = error[np.isfinite(error)]
  if tested.rows and dataset.part_names:
    found, true = part_labels(tested.found), part_labels(tested.parts)
    values["discovered_iou"] = matched_part_ious(found, true)
    report["discovered_nmi"] = normalized_mutual_information(found, true)
  return (
    summarize({key: column for key, column in values.items() if column.size}, seed=seed) | report
  )


class _Annotated:
  """Found and true annotations of the images of a split, in the squares of a store."""

  def __init__(self, split: Split, store: PartStore):
    rows = {name: row for row, name in enumerate(store.names)}
    examples = [split[i] for i in range(len(split))]
    examples = [example for example in examples if example.name in rows]
    self.rows = [rows[example.name] for example in examples]
    self.found = store.probabilities(self.rows)
    squares = [tuple(float(x) for x in store.squares[row]) for row in self.rows]
    size = store.maps.shape[1]
    crops = [
      crop(example, (x0, y0, side), image_size=size)
      for example, (x0, y0, side) in zip(examples, squares, strict=True)
    ]
    self.lengths = np.array(
      [
        2.0 * max(e.box[2] - e.box[0], e.box[3] - e.box[1]) / side
        for e, (_, _, side) in zip(examples, squares, strict=True)
      ]
    )
    self._crops = crops

  @property
  def keypoints(self) -> np.ndarray:
    """[N, K, 3]; an image without has none visible."""
    some = next(c.keypoints for c in self._crops if c.keypoints is not None)
    return np.stack(
      [np.zeros_like(some) if c.keypoints is None else c.keypoints for c in self._crops]
    )

  @property
  def parts(self) -> np.ndarray:
    """[N, S, S, P + 1]; an image without is all background."""
    some = next(c.parts for c in self._crops if c.parts is not None)
    return np.stack([np.zeros_like(some) if c.parts is None else c.parts for c in self._crops])
