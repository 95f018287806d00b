"""How good part maps are that nobody named: against true parts, keypoints, and their mirror image.

Parts that were discovered have no names and no order: no measure here depends on either.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment

from umr_jax.data.dataset import Dataset
from umr_jax.data.example import Example
from umr_jax.data.part_store import PartStore
from umr_jax.data.transforms import Crop, crop
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
    Of the test images that have what a measure needs: `landmark_error` (lengths of the object) with
    keypoints; `discovered_iou` and `discovered_nmi` with true parts; intervals as KEY_ci where a
    value is an average of images. Without test images, or without truth, what is left:
    `mirror_agreement`, the share of pixels that get the same part when an image is mirrored, where
    it was measured.
  """
  values: dict[str, np.ndarray] = {}
  report: Report = {}
  if np.isfinite(store.mirror_agreement):
    report["mirror_agreement"] = store.mirror_agreement
  tested = _annotated(dataset.splits["test"], store)
  if dataset.keypoint_names:
    errors = _landmark_errors(_annotated(dataset.splits["train"], store), tested)
    values["landmark_error"] = errors[np.isfinite(errors)]
  labels = [
    (np.argmax(row.found, axis=-1), np.argmax(row.crop.parts, axis=-1))
    for row in tested
    if row.crop.parts is not None and row.crop.parts.any()
  ]
  if labels:
    # The match is fixed on the images that are measured: parts are matched, not learned, here.
    values["discovered_iou"] = part_ious(labels, labels)
    found, true = (np.stack(column) for column in zip(*labels, strict=True))
    report["discovered_nmi"] = normalized_mutual_information(found, true)
  return (
    summarize({key: column for key, column in values.items() if column.size}, seed=seed) | report
  )


class _Annotated(NamedTuple):
  """An image in its square of a store: what was found in it, and what is annotated."""

  found: np.ndarray  # [S, S, P + 1]
  crop: Crop
  length: float  # the longer side of the object's box, in [-1, 1] of the square


def _annotated(split: Sequence[Example], store: PartStore) -> list[_Annotated]:
  """The images of a split that a store has."""
  rows = {name: row for row, name in enumerate(store.names)}
  result = []
  for example in split:
    if (row := rows.get(example.name)) is not None:
      x0, y0, side = (float(value) for value in store.squares[row])
      found = crop(example, (x0, y0, side), image_size=store.maps.shape[1])
      left, top, right, bottom = example.box
      length = 2.0 * max(right - left, bottom - top) / side
      result.append(_Annotated(store.probabilities(row), found, length))
  return result


def _landmark_errors(known: list[_Annotated], tested: list[_Annotated]) -> np.ndarray:
  """`landmark_regression_error` over the images with keypoints; empty where one split has none."""
  known, tested = (
    [row for row in rows if row.crop.keypoints is not None] for rows in (known, tested)
  )
  if not known or not tested:
    return np.zeros(0)
  pairs = [
    (
      part_centers(np.stack([row.found for row in rows]))[0],
      np.stack([np.asarray(row.crop.keypoints) for row in rows]),
    )
    for rows in (known, tested)
  ]
  lengths = np.array([row.length for row in tested])
  return landmark_regression_error(*pairs[0], *pairs[1], test_lengths=lengths)
