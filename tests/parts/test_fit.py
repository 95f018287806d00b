"""Training of the part network: it learns, repeats itself, and refuses."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.parts.part_shapes import PARTS, draw_shapes, mutual_information, one_hot, part_iou
from tests.tiny import SmallParts
from umr_jax.parts.fit import (
  FitResult,
  _make_optimizer,
  fit_parts,
  init_variables,
  make_net,
)
from umr_jax.parts.segmenter import segment

pytestmark = pytest.mark.usefixtures("standard_promotion")
SIZE = 48
SETTINGS = SmallParts(
  image_size=SIZE, net_width=16, steps=150, batch_size=8, learning_rate=1e-2, seed=1
)
WEIGHTS = SETTINGS.weights

# One compiled step for all tests that only need one; the persistent cache knows it again.
SHORT = dataclasses.replace(SETTINGS, steps=2, net_width=8)
SHORT_WEIGHTS = WEIGHTS._replace(landmark=1.0, concentration=1.0)


def fit(images, masks, targets=None, features=None, settings=SETTINGS, **options):
  return fit_parts(
    images,
    masks,
    targets=targets,
    features=features,
    num_parts=PARTS,
    settings=settings,
    **options,
  )


@pytest.fixture(scope="module")
def shapes():
  return draw_shapes(np.random.default_rng(0), count=40, size=SIZE)


def noisy_targets(rng, labels):
  """Blocks of wrong parts, and every fourth image without a map."""
  cells = rng.random((len(labels), 12, 12)) < 0.3
  wrong = rng.integers(1, PARTS + 1, cells.shape)
  grow = np.ones((4, 4), int)
  cells, wrong = (np.kron(a, grow) for a in (cells, wrong))
  noisy = np.where(cells & (labels > 0), wrong, labels)
  targets = one_hot(noisy)
  targets[::4] = 0.0
  return noisy, targets


@pytest.mark.slow
def test_maps_are_cleaner_than_the_targets_they_were_learned_from(rng, shapes):
  images, masks, labels = shapes
  noisy, targets = noisy_targets(rng, labels)
  seen = []
  result = fit(images, masks, targets, record=lambda step, losses: seen.append((step, losses)))
  probs = segment(result, images, batch_size=16)
  assert probs.shape == (40, SIZE, SIZE, PARTS + 1) and probs.dtype == np.float32
  np.testing.assert_allclose(probs.sum(-1), 1.0, rtol=1e-5)
  cleaned, given = part_iou(probs.argmax(-1), labels), part_iou(noisy, labels)
  assert cleaned > given + 0.1
  assert part_iou(probs.argmax(-1)[::4], labels[::4]) > given + 0.05  # of the images without
  assert [step for step, _ in seen] == [25, 50, 75, 100, 125, 150]
  assert seen[-1][1]["total"] < seen[0][1]["total"]


@pytest.mark.slow
def test_the_losses_of_scops_alone_find_the_parts(rng, shapes):
  images, masks, labels = shapes
  # As after a ReLU: each part has channels of its own, beside some that all share.
  codes = np.kron(np.eye(PARTS + 1), np.ones((1, 3))) + rng.uniform(0.0, 0.3, (PARTS + 1, 12))
  cells = one_hot(labels).reshape(40, 12, 4, 12, 4, PARTS + 1).mean((2, 4))
  features = cells @ codes + rng.normal(0.0, 0.3, (40, 12, 12, 12))
  settings = dataclasses.replace(SETTINGS, method="scops", steps=200)
  result = fit(images, masks, None, features.astype(np.float32), settings)
  found = segment(result, images, batch_size=16).argmax(-1)
  inside = labels > 0
  score = mutual_information(found[inside], labels[inside])
  assert score > 0.5


@pytest.mark.slow
def test_the_same_seed_gives_the_same_network(shapes):
  images, masks, labels = shapes
  first, again = (
    fit(images, masks, one_hot(labels), settings=SHORT, weights=SHORT_WEIGHTS) for _ in range(2)
  )
  jax.tree.map(np.testing.assert_array_equal, first.variables, again.variables)


def test_segmenting_does_not_depend_on_the_batch_and_knows_no_sides(shapes):
  images = shapes[0][:5]
  net = make_net(SETTINGS, num_parts=PARTS)
  variables = init_variables(net, SETTINGS, image_size=SIZE, features=None)
  result = FitResult(net, variables)
  probs = segment(result, images, batch_size=4)
  np.testing.assert_allclose(segment(result, images[4:], batch_size=4), probs[4:], atol=1e-5)
  mirrored = segment(result, np.ascontiguousarray(images[:, :, ::-1]), batch_size=4)
  np.testing.assert_allclose(mirrored, probs[:, :, ::-1], atol=1e-5)


def test_a_frozen_normalization_and_the_basis_have_rates_of_their_own():
  rows = {"conv": {"kernel": np.ones(3, np.float32)}, "bn1": {"scale": np.ones(3, np.float32)}}
  trained = {"params": {"resnet": rows}, "basis": {"parts": np.ones(3, np.float32)}}
  grads = jax.tree.map(np.ones_like, trained)
  for frozen, expected in ((True, 0.0), (False, -SETTINGS.learning_rate)):
    optimizer = _make_optimizer(SETTINGS, frozen=frozen)
    updates, _ = optimizer.update(grads, optimizer.init(trained), trained)
    np.testing.assert_allclose(updates["params"]["resnet"]["bn1"]["scale"], expected, rtol=1e-3)
    kernel = updates["params"]["resnet"]["conv"]["kernel"]
    np.testing.assert_allclose(kernel, -SETTINGS.learning_rate, rtol=1e-3)
    np.testing.assert_allclose(updates["basis"]["parts"], 10.0 * kernel, rtol=1e-3)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"targets": None}, "nothing defines what a part is"),
    (
      {"settings": SETTINGS, "weights": WEIGHTS._replace(supervision=0.0)},
      "nothing defines what a part is",
    ),
    ({"settings": SETTINGS, "weights": WEIGHTS._replace(semantic=1.0)}, "there are no features"),
    ({"targets": np.zeros((40, 12, 12, 3), np.float32)}, "expected 4 channels"),
    ({"settings": dataclasses.replace(SETTINGS, net_weights="a.pth")}, "no published weights"),
  ],
)
def test_inputs_that_do_not_go_together_are_refused(shapes, change, message):
  images, masks, labels = shapes
  arguments = {"targets": one_hot(labels), "settings": SETTINGS} | change
  with pytest.raises(ValueError, match=message):
    fit(images, masks, **arguments)


def test_a_loss_that_is_not_finite_is_said_with_its_step(shapes):
  images, masks, labels = shapes
  targets = one_hot(labels)
  targets[:] = np.nan
  with pytest.raises(ValueError, match=r"not finite by step 2 .*supervision nan"):
    fit(images, masks, targets, settings=SHORT, weights=SHORT_WEIGHTS)
