"""PCK and APK against plain loops, and what they must be for perfect and for random transfers."""

from typing import NamedTuple

import numpy as np
import pytest

from tests.predict.test_transfer import camera, flow, make
from umr_jax.eval.keypoint_metrics import (
  Transfers,
  average_precision,
  draw_pairs,
  keypoint_metrics,
  precision_recall,
  transfer_pairs,
)
from umr_jax.predict.transfer import METHODS, correspondence, transfer_keypoints

FLIP = (0, 2, 1, 3)
OPTIONS = dict(name="flow", padding=0.05, flip=FLIP, seed=0)


@pytest.fixture(autouse=True)
def few_pairs(monkeypatch):
  monkeypatch.setattr("umr_jax.eval.keypoint_metrics.PAIRS", 300)


class Landmarks(NamedTuple):
  """K keypoints of N images, each on one of M elements of the mesh."""

  points: np.ndarray  # [N, K, 2]
  visible: np.ndarray  # [N, K]
  chosen: np.ndarray  # [N, K], elements
  distance: np.ndarray  # [N, K]
  positions: np.ndarray  # [N, M, 2]

  def transfers(self):
    pairs = draw_pairs(len(self.points), number=300)
    source, target = pairs.T
    moved = self.positions[target[:, None], self.chosen[source]]
    return Transfers(
      images=len(self.points),
      pairs=pairs,
      in_source=self.visible[source],
      in_target=self.visible[target],
      errors=np.linalg.norm(moved - self.points[target], axis=-1),
      confidence=np.exp(-self.distance[source]),
    )


def made_up(rng, *, images=20, noise=0.0, shuffled=False):
  """Four keypoints, each on an element of its own; positions are the truth with noise."""
  points = rng.uniform(-0.9, 0.9, (images, 4, 2))
  positions = np.concatenate([rng.uniform(-1, 1, (images, 3, 2)), points], axis=1)
  positions[:, 3:] += noise * rng.normal(size=points.shape)
  chosen = np.tile(np.arange(3, 7), (images, 1))
  if shuffled:
    chosen = rng.integers(0, 3, chosen.shape)
  visible = rng.random((images, 4)) > 0.3
  distance = np.linalg.norm(np.take_along_axis(positions, chosen[..., None], 1) - points, axis=-1)
  return Landmarks(points, visible, chosen, distance, positions)


def test_pairs_are_seeded_by_their_number_and_go_both_ways():
  pairs = draw_pairs(7, number=50)
  assert pairs.shape == (100, 2) and pairs.min() >= 0 and pairs.max() < 7
  np.testing.assert_array_equal(pairs[:50, ::-1], pairs[50:])
  np.testing.assert_array_equal(pairs, draw_pairs(7, number=50))
  rng = np.random.RandomState(7)
  np.testing.assert_array_equal(pairs[:50, 0], rng.randint(0, 7, 50))


def test_the_truth_is_perfect(rng):
  report = keypoint_metrics(made_up(rng).transfers(), **OPTIONS)
  for key in ("pck", "pck_15", "pck_csm", "pck_csm_15", "pck_paired", "pck_unpaired"):
    assert report[f"kt_flow_{key}"] == 1.0 and report[f"kt_flow_{key}_ci"] == [1.0, 1.0]


def test_certain_and_right_transfers_have_full_precision(rng):
  landmarks = made_up(rng)._replace(visible=np.ones((20, 4), bool))
  report = keypoint_metrics(landmarks.transfers(), **OPTIONS)
  assert report["apk"] == pytest.approx(1.0)
  assert report["apk_curve"]["precision"][-1] == report["apk_curve"]["recall"][-1] == 1.0


def test_shuffled_transfers_are_as_good_as_chance(rng):
  report = keypoint_metrics(made_up(rng, images=60, shuffled=True).transfers(), **OPTIONS)
  # A disc of radius 0.1 / 0.55 in a square of side 2.
  chance = np.pi * (0.1 / 0.55) ** 2 / 4.0
  assert report["kt_flow_pck"] == pytest.approx(chance, abs=0.025)
  low, high = report["kt_flow_pck_ci"]
  assert low < report["kt_flow_pck"] < high < 0.15
  assert report["apk"] < 0.05


def test_numbers_are_those_of_a_loop_over_transfers(rng):
  landmarks = made_up(rng, noise=0.15)
  pairs = draw_pairs(20, number=300)
  right, wide, csm, count = (np.zeros(4) for _ in range(4))
  for a, b in pairs:
    for k in range(4):
      moved = landmarks.positions[b, landmarks.chosen[a, k]]
      error = np.hypot(*(moved - landmarks.points[b, k]))
      if landmarks.visible[a, k] and landmarks.visible[b, k]:
        count[k] += 1
        right[k] += error * 0.55 < 0.1
        wide[k] += error * 0.55 < 0.15
        csm[k] += error / 2 < 0.1
  report = keypoint_metrics(landmarks.transfers(), **OPTIONS)
  assert report["kt_flow_pck"] == pytest.approx((right / count).mean())
  assert report["kt_flow_pck_15"] == pytest.approx((wide / count).mean())
  assert report["kt_flow_pck_csm"] == pytest.approx((csm / count).mean())
  assert report["kt_flow_pck_paired"] == pytest.approx((right / count)[[1, 2]].mean())
  assert report["kt_flow_pck_unpaired"] == pytest.approx((right / count)[[0, 3]].mean())
  assert report["kt_flow_pck_csm"] > report["kt_flow_pck"]
  assert report["apk"] == pytest.approx(slow_apk(landmarks, pairs), abs=1e-9)


def slow_apk(landmarks, pairs):
  """Items one by one, prefixes of every hundredth of them."""
  items = []
  for a, b in pairs:
    for k in range(4):
      if landmarks.visible[a, k]:
        moved = landmarks.positions[b, landmarks.chosen[a, k]]
        close = np.hypot(*(moved - landmarks.points[b, k])) * 0.55 < 0.1
        both = landmarks.visible[b, k]
        items.append((landmarks.distance[a, k], bool(both and close), bool(both)))
  items.sort(key=lambda item: item[0])
  positives = sum(item[2] for item in items)
  total, recall, precision = 0.0, 0.0, None
  for step in range(1, 101):
    prefix = items[: int(np.ceil(len(items) * step / 100 - 1e-9))]
    found = sum(item[1] for item in prefix)
    precision = found / len(prefix) if precision is None else precision
    total += precision * (found / positives - recall)
    precision, recall = found / len(prefix), found / positives
  return total


def test_weights_count_items_as_often():
  right, positive = np.array([1, 0, 1, 0], bool), np.array([1, 1, 1, 0], bool)
  weights = np.array([2.0, 1.0, 0.0, 3.0])
  repeated = np.repeat(np.arange(4), weights.astype(int))
  found = precision_recall(right, positive, weights)
  expected = precision_recall(right[repeated], positive[repeated], np.ones(len(repeated)))
  assert average_precision(*found) == pytest.approx(average_precision(*expected), abs=0.05)
  assert found[1][-1] == expected[1][-1] and found[0][-1] == expected[0][-1]


def test_what_no_pair_shows_is_absent(rng):
  hidden = made_up(rng)._replace(visible=np.zeros((20, 4), bool))
  assert keypoint_metrics(hidden.transfers(), **OPTIONS) == {}
  unpaired = keypoint_metrics(made_up(rng).transfers(), **(OPTIONS | {"flip": ()}))
  assert "kt_flow_pck_paired" not in unpaired and "kt_flow_pck_unpaired" in unpaired


@pytest.mark.parametrize("method", METHODS)
def test_what_is_measured_is_the_public_function(rng, monkeypatch, method):
  """Every pair's points and confidence are those of `transfer_keypoints`, in its crop."""
  monkeypatch.setattr("umr_jax.eval.keypoint_metrics.PAIRS", 6)
  box = (0.0, 0.0, 2.0, 2.0)  # whose pixels are the crop's units, from 0
  recs = [
    make(camera=camera(azimuth=30.0 * i, scale=0.6, tx=0.1 * i), flow=flow(1.0, 0.1 * i), box=box)
    for i in range(3)
  ]
  # On every mesh: beside one, front and back of its outline are equally near.
  keypoints = np.concatenate([rng.uniform(-0.2, 0.2, (3, 4, 2)), np.ones((3, 4, 1))], axis=-1)
  keypoints[1, 2, 2] = 0.0
  found = transfer_pairs(keypoints, [correspondence(rec) for rec in recs], method)
  assert {tuple(pair) for pair in found.pairs} - {(i, i) for i in range(3)}
  for row, (a, b) in enumerate(found.pairs):
    shown = keypoints[a, :, 2] > 0.5
    np.testing.assert_array_equal(found.in_source[row], shown)
    moved, confidence = transfer_keypoints(
      recs[a], recs[b], keypoints[a, shown, :2] + 1.0, method=method
    )
    errors = np.linalg.norm(moved - 1.0 - keypoints[b, shown, :2], axis=-1)
    np.testing.assert_allclose(found.errors[row, shown], errors, atol=1e-9)
    np.testing.assert_allclose(found.confidence[row, shown], confidence, atol=1e-9)
