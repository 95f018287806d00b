"""Keypoint transfer in numbers: PCK and APK over random pairs of images."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from umr_jax.predict.transfer import Correspondence, Located, Method, carry, locate
from umr_jax.types import Report

PAIRS = 10_000
# The share of the object's box, along its longer side, within which a transfer is right.
ALPHA, WIDE_ALPHA = 0.1, 0.15
_PREFIXES = 100
_RESAMPLES, _APK_RESAMPLES = 1000, 200
_CHUNK = 1 << 24  # weights held at once


def draw_pairs(count: int, *, number: int = PAIRS) -> np.ndarray:
  """Pairs of images (source, target), each in both directions: [2 number, 2].

  Two independent samples with replacement, seeded with the number of images: an image may be paired
  with itself.

  Args:
    count: of the images.
    number: of the samples.

  Source: Kulkarni et al. 2019 (CSM), whose pairs the released evaluation uses.
  """
  rng = np.random.RandomState(count)
  first, second = rng.randint(0, count, number), rng.randint(0, count, number)
  forth = np.stack([first, second], axis=-1)
  return np.concatenate([forth, forth[:, ::-1]])


class Transfers(NamedTuple):
  """Keypoints carried over between pairs of images, P pairs of K keypoints; N images in all."""

  images: int
  pairs: Int[np.ndarray, "P 2"]  # source, target
  in_source: Bool[np.ndarray, "P K"]  # visible
  in_target: Bool[np.ndarray, "P K"]
  errors: Float[np.ndarray, "P K"]  # from the target's own keypoint, in [-1, 1] of its crop
  confidence: Float[np.ndarray, "P K"]  # of `predict.transfer.carry`


def transfer_pairs(
  keypoints: np.ndarray, correspondences: Sequence[Correspondence], method: Method
) -> Transfers:
  """Carries the keypoints of images over to others, as `predict.transfer_keypoints` does.

  Args:
    keypoints: [N, K, 3]: x, y in [-1, 1] of the crop, visible.
    correspondences: of the same images.
    method: as in `predict.transfer_keypoints`.
  """
  points, visible = keypoints[..., :2].astype(np.float64), keypoints[..., 2] > 0.5
  pairs = draw_pairs(len(points), number=PAIRS)
  located = [
    locate(points[n][visible[n]], source, method) for n, source in enumerate(correspondences)
  ]
  errors, confidence = np.zeros((2, len(pairs), points.shape[1]))
  for number, target in enumerate(correspondences):
    rows = np.flatnonzero(pairs[:, 1] == number)
    if not rows.size:
      continue
    sources = pairs[rows, 0]
    columns = zip(*(located[n] for n in sources), strict=True)
    joined = Located(*(np.concatenate(column) for column in columns))
    moved, sure = carry(joined, target, method)
    row, keypoint = np.nonzero(visible[sources])
    errors[rows[row], keypoint] = np.linalg.norm(moved - points[number, keypoint], axis=-1)
    confidence[rows[row], keypoint] = sure
  return Transfers(
    len(points), pairs, visible[pairs[:, 0]], visible[pairs[:, 1]], errors, confidence
  )


def keypoint_metrics(
  transfers: Transfers, *, name: str, padding: float, flip: tuple[int, ...], seed: int
) -> Report:
  """PCK and APK of one way of carrying keypoints, with intervals.

  Args:
    transfers: between random pairs of the split's images.
    name: of the way, "flow", "camera", "mesh" or "surface".
    padding: of the crops, as a share of the box: with it errors are shares of the tight box's
      longer side.
    flip: for each keypoint its mirror partner; itself where it has none.
    seed: of the bootstrap over images.

  Returns:
    `kt_NAME_pck` (within 0.1 of the box's longer side), `kt_NAME_pck_15` (0.15), `kt_NAME_pck_csm`
    and `kt_NAME_pck_csm_15` (the same shares of the crop's side, CSM's larger radius),
    `kt_NAME_pck_paired` and `kt_NAME_pck_unpaired` (0.1; keypoints with and without a mirror
    partner), `apk` by flow or `apk_NAME` at 0.1; each KEY with `KEY_ci`; and `apk_curve` or
    `apk_NAME_curve`, {precision, recall}.
    PCK is the unweighted mean over keypoints. What no pair shows is absent.

  Source: Li et al. 2020, section 4.3; Kulkarni et al. 2019 (CSM) for APK.
  """
  pairs, errors = transfers.pairs, transfers.errors
  counted = transfers.in_source & transfers.in_target
  of_box, of_crop = errors * (1.0 + 2.0 * padding) / 2.0, errors / 2.0
  partner = np.array(flip) != np.arange(len(flip)) if flip else np.zeros(counted.shape[1], bool)
  every = np.ones_like(partner)
  within = (of_box < ALPHA, of_box < WIDE_ALPHA, of_crop < ALPHA, of_crop < WIDE_ALPHA)
  # Of each which of these, and the keypoints.
  kinds = {
    "pck": (0, every),
    "pck_15": (1, every),
    "pck_csm": (2, every),
    "pck_csm_15": (3, every),
    "pck_paired": (0, partner),
    "pck_unpaired": (0, ~partner),
  }
  # Drawing the test sets takes longest: all sums are of the same ones. Right ones, then all.
  columns = np.stack([*(right & counted for right in within), counted]).astype(np.float32)
  rows = columns.transpose(1, 0, 2).reshape(len(pairs), -1)
  weights = _resampled(pairs, transfers.images, _RESAMPLES, seed)
  sums = np.concatenate([rows.sum(axis=0)[None], *(drawn @ rows for drawn in weights)])
  sums = sums.reshape(len(sums), len(columns), -1)
  report: Report = {}
  for kind, (number, which) in kinds.items():
    if not counted[:, which].any():
      continue
    found, *draws = _mean_of_ratios(sums[:, number, which], sums[:, -1, which]).tolist()
    report[f"kt_{name}_{kind}"] = found
    report[f"kt_{name}_{kind}_ci"] = np.percentile(draws, [2.5, 97.5]).tolist()
  if counted.any():
    report |= _apk(transfers, (of_box < ALPHA) & counted, key=apk_key(name), seed=seed)
  return report


def _resampled(pairs: np.ndarray, count: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
  """Weights [R, P] of the pairs in test sets resampled from the test set, a chunk at a time.

  A pair counts as often as its two images were sampled, multiplied; one of an image with itself as
  often as that image, or test sets with repetitions would hold more of them.
  """

  rng = np.random.default_rng(seed)
  rows = max(1, _CHUNK // len(pairs))
  for start in range(0, resamples, rows):
    sampled = rng.multinomial(count, np.full(count, 1.0 / count), min(rows, resamples - start))
    sampled = sampled.astype(np.float32)
    other = np.where(pairs[:, 0] == pairs[:, 1], np.float32(1.0), sampled[:, pairs[:, 1]])
    yield sampled[:, pairs[:, 0]] * other


def _mean_of_ratios(right: np.ndarray, of: np.ndarray) -> np.ndarray:
  """The mean over keypoints of right / of, [R], leaving out keypoints that never count."""
  ratio = np.divide(right, of, out=np.full(right.shape, np.nan), where=of > 0)
  known = np.isfinite(ratio).any(axis=-1)
  return np.nanmean(np.where(known[:, None], ratio, 0.0), axis=-1)


def _apk(transfers: Transfers, right: np.ndarray, *, key: str, seed: int) -> Report:
  """APK with its interval and curve; items are all keypoints that a pair's source shows."""
  items = np.argwhere(transfers.in_source)
  confidence = transfers.confidence[items[:, 0], items[:, 1]]
  items = items[np.argsort(-confidence, kind="stable")]
  pair, keypoint = items[:, 0], items[:, 1]
  right, positive = right[pair, keypoint], transfers.in_target[pair, keypoint]
  precision, recall = precision_recall(right, positive, np.ones(len(items)))
  draws = [
    average_precision(*precision_recall(right, positive, row[pair]))
    for weights in _resampled(transfers.pairs, transfers.images, _APK_RESAMPLES, seed)
    for row in weights
    if (row[pair] * positive).any()
  ]
  return {
    key: average_precision(precision, recall),
    f"{key}_ci": np.percentile(draws, [2.5, 97.5]).tolist(),
    f"{key}_curve": {"precision": precision.tolist(), "recall": recall.tolist()},
  }


def apk_key(name: str) -> str:
  """The report's key of APK by one way; the way by flow is the one that the paper reports."""
  return "apk" if name == "flow" else f"apk_{name}"


def precision_recall(
  right: np.ndarray, positive: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Precision and recall [100] of ever longer prefixes of items sorted by confidence.

  Args:
    right: [M], whether the keypoint is in the target too and the transfer is right.
    positive: [M], whether it is in the target.
    weights: [M], how often the item counts; one each for the items themselves.

  Source: Kulkarni et al. 2019 (CSM), evaluation of keypoint transfer by precision and recall.
  """
  total, found = np.cumsum(weights, dtype=np.float64), np.cumsum(weights * right, dtype=np.float64)
  wanted = total[-1] * np.arange(1, _PREFIXES + 1) / _PREFIXES
  last = np.minimum(np.searchsorted(total, wanted - 1e-6 * total[-1]), len(total) - 1)
  return found[last] / np.maximum(total[last], 1e-12), found[last] / np.sum(weights * positive)


def average_precision(precision: np.ndarray, recall: np.ndarray) -> float:
  """The sum of precision times the gain of recall, from the empty prefix on.

  A wrong transfer never counts, so that recall, and with it APK, stays below PCK.

  Args:
    precision: of ever longer prefixes.
    recall: of the same.
  """
  before = np.concatenate([precision[:1], precision[:-1]])
  return float(np.sum(before * np.diff(recall, prepend=0.0)))
