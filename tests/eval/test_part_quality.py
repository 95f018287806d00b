"""Measures of parts: renaming changes nothing, truth is perfect, chance is chance."""

import dataclasses

import numpy as np
import pytest

from umr_jax.data.dataset import Dataset
from umr_jax.data.example import Example
from umr_jax.data.part_store import make_store
from umr_jax.eval.part_quality import (
  landmark_regression_error,
  match_parts,
  mean_part_iou,
  normalized_mutual_information,
  part_centers,
  part_ious,
  part_report,
)


def one_hot(labels, parts):
  return np.eye(parts + 1, dtype=np.float32)[labels]


def test_mutual_information_is_that_of_its_definition(rng):
  found, true = rng.integers(0, 4, (2, 3, 20, 20))
  pairs = [(f, t) for f, t in zip(found.ravel(), true.ravel(), strict=True) if f and t]
  table = np.zeros((4, 4))
  for f, t in pairs:
    table[f, t] += 1 / len(pairs)
  a, b = table.sum(1), table.sum(0)
  information = sum(
    table[i, j] * np.log(table[i, j] / (a[i] * b[j]))
    for i in range(4) for j in range(4) if table[i, j]
  )  # fmt: skip
  entropies = [-sum(x * np.log(x) for x in p if x) for p in (a, b)]
  expected = information / np.mean(entropies)
  assert normalized_mutual_information(found, true) == pytest.approx(expected)


def test_names_do_not_matter_and_chance_is_near_zero(rng):
  true = rng.integers(0, 5, (4, 32, 32))
  renamed = np.array([0, 3, 1, 4, 2])[true]
  assert normalized_mutual_information(renamed, true) == pytest.approx(1.0)
  pairs = list(zip(renamed, true, strict=True))
  np.testing.assert_allclose(part_ious(pairs, pairs), 1.0)
  chance = np.where(true > 0, rng.integers(1, 5, true.shape), 0)
  assert normalized_mutual_information(chance, true) < 0.02
  assert normalized_mutual_information(np.zeros_like(true), true) == 0.0
  assert normalized_mutual_information((true > 0).astype(np.int64), true) == 0.0


def test_centres_are_means_of_pixel_centres(rng):
  labels = rng.integers(0, 4, (2, 10, 10))
  labels[1][labels[1] == 3] = 0  # the second image lacks a part
  centers, there = part_centers(one_hot(labels, 3))
  np.testing.assert_array_equal(there, [[True] * 3, [True, True, False]])
  rows, columns = np.nonzero(labels[0] == 2)
  expected = [(2 * columns + 1 - 10).mean() / 10, (2 * rows + 1 - 10).mean() / 10]
  np.testing.assert_allclose(centers[0, 1], expected)
  np.testing.assert_allclose(centers[1, 2], centers[1, :2].mean(axis=0))


def test_landmarks_that_are_linear_in_centres_are_found(rng):
  train, test = rng.uniform(-1, 1, (60, 4, 2)), rng.uniform(-1, 1, (20, 4, 2))
  mixing, shift = rng.normal(size=(8, 3, 2)) / 3, rng.normal(size=(3, 2))

  def keypoints(centers):
    xy = np.einsum("nc,ckd->nkd", centers.reshape(len(centers), -1), mixing) + shift
    return np.concatenate([xy, np.ones((len(xy), 3, 1))], axis=-1)

  known, unseen = keypoints(train), keypoints(test)
  unseen[3, :, 2] = 0.0  # nothing visible
  unseen[4, 1] = [50.0, 50.0, 0.0]  # hidden: does not count
  error = landmark_regression_error(train, known, test, unseen, test_lengths=np.full(20, 2.0))
  assert np.isnan(error[3])
  assert np.nanmax(error) < 2e-3  # the small penalty on slopes
  far = landmark_regression_error(
    rng.uniform(-1, 1, train.shape), known, test, unseen, test_lengths=np.full(20, 2.0)
  )
  assert np.nanmean(far) > 0.1
  # The unit is the object's length.
  doubled = landmark_regression_error(
    train, known, test[:, ::-1].copy(), unseen, test_lengths=np.full(20, 4.0)
  )
  single = landmark_regression_error(
    train, known, test[:, ::-1].copy(), unseen, test_lengths=np.full(20, 2.0)
  )
  np.testing.assert_allclose(doubled, single / 2)


@pytest.fixture
def truth(rng):
  """A data set of twelve squares, halved into two parts, with a keypoint in each half."""
  examples = []
  for n in range(12):
    x, y = rng.integers(2, 14, 2)
    labels = np.zeros((32, 32), np.int64)
    labels[y : y + 16, x : x + 8], labels[y : y + 16, x + 8 : x + 16] = 1, 2
    keypoints = np.array([[x + 4, y + 8, 1], [x + 12, y + 8, 1]], np.float32)
    examples.append(
      Example(
        name=f"n{n}",
        image=np.zeros((32, 32, 3), np.uint8),
        mask=(labels > 0).astype(np.float32),
        box=(float(x), float(y), x + 16.0, y + 16.0),
        parts=one_hot(labels, 2),
        keypoints=keypoints,
      )
    )
  return Dataset(
    name="squares",
    splits={"train": examples[:8], "test": examples[8:]},
    part_names=("left", "right"),
    keypoint_names=("a", "b"),
    keypoint_flip=(1, 0),
    meshes={},
    skipped=[],
  )


def test_true_parts_are_reported_as_perfect_under_any_names(truth):
  examples = [*truth.splits["train"], *truth.splits["test"]]
  maps = np.stack([np.round(255 * e.parts[..., [0, 2, 1]]) for e in examples]).astype(np.uint8)
  names = [e.name for e in examples]
  store = make_store(names, [(0.0, 0.0, 32.0)] * 12, maps, mirror_agreement=0.75)
  report = part_report(truth, store, seed=0)
  assert report["discovered_iou"] == 1.0 and report["discovered_nmi"] == pytest.approx(1.0)
  assert report["landmark_error"] < 0.01 and report["mirror_agreement"] == 0.75
  # One part for all: it says where the object is, and no more.
  one = np.stack([np.round(255 * np.stack([1 - e.mask, e.mask], -1)) for e in examples])
  whole = make_store(store.names, [(0.0, 0.0, 32.0)] * 12, one.astype(np.uint8))
  blind = part_report(truth, whole, seed=0)
  assert blind["discovered_iou"] <= 0.5 and blind["discovered_nmi"] == 0.0
  assert "mirror_agreement" not in blind  # it was not measured


def with_test_images(truth, **changes):
  """The data set, the last of its test images changed, and in the second result all of them."""
  train, test = truth.splits["train"], truth.splits["test"]
  changed = [dataclasses.replace(example, **changes) for example in test]
  return (
    dataclasses.replace(truth, splits={"train": train, "test": some})
    for some in ([*test[:-1], changed[-1]], changed)
  )


def test_images_without_a_map_or_keypoints_do_not_count(truth):
  examples = [*truth.splits["train"], *truth.splits["test"]]
  maps = np.stack([np.round(255 * e.parts) for e in examples]).astype(np.uint8)
  store = make_store([e.name for e in examples], [(0.0, 0.0, 32.0)] * 12, maps)
  some, none = with_test_images(truth, parts=None)
  report = part_report(some, store, seed=0)
  assert report["discovered_iou"] == 1.0 and report["discovered_nmi"] == pytest.approx(1.0)
  assert set(part_report(none, store, seed=0)) == {"landmark_error", "landmark_error_ci"}
  some, none = with_test_images(truth, keypoints=None)
  assert part_report(some, store, seed=0)["landmark_error"] < 0.01
  without = part_report(none, store, seed=0)
  assert without["discovered_iou"] == 1.0 and "landmark_error" not in without
  untaught = [dataclasses.replace(e, keypoints=None) for e in truth.splits["train"]]
  untaught = dataclasses.replace(truth, splits=truth.splits | {"train": untaught})
  assert "landmark_error" not in part_report(untaught, store, seed=0)


def test_renamed_parts_are_found_again(rng):
  true = rng.integers(0, 5, (6, 8, 8))
  renamed = np.array([0, 3, 1, 4, 2])
  found = renamed[true]
  match = match_parts(found, true, parts=4)
  np.testing.assert_array_equal(match[found], true)
  assert match[0] == 0 and sorted(match) == list(range(5))
  assert all(mean_part_iou(match[f], t) == 1.0 for f, t in zip(found, true, strict=True))


def test_a_part_too_many_stands_for_nothing_that_another_holds(rng):
  true = rng.integers(0, 3, (4, 8, 8))
  found = np.where((true == 2) & (rng.random(true.shape) < 0.4), 3, true)
  match = match_parts(found, true, parts=3)
  assert match[1] == 1 and match[2] == 2 and match[3] == 3


def test_overlap_is_that_of_a_loop_over_pixels(rng):
  found, true = rng.integers(0, 4, (2, 9, 9))
  expected = []
  for part in (1, 2, 3):
    pairs = [(f == part, t == part) for f, t in zip(found.ravel(), true.ravel(), strict=True)]
    expected.append(sum(a and b for a, b in pairs) / sum(a or b for a, b in pairs))
  assert mean_part_iou(found, true) == pytest.approx(np.mean(expected))
  assert mean_part_iou(found, np.zeros_like(true)) == 0.0
