"""Features that are trained on a folder: the loss, repeatability, and what they are worth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.cluster.vq import kmeans2

from umr_jax.data.synthetic import render_image
from umr_jax.data.transforms import crop, square_box
from umr_jax.parts.encoder_features import contrastive_loss, train_encoder_features


@pytest.fixture
def optax_promotion():
  """Optax promotes integer step counts by itself: strict promotion ends where it begins."""
  with jax.numpy_dtype_promotion("standard"):
    yield


@pytest.fixture(scope="module")
def folder():
  """Ten discs before noise, in two colours: above and below their middle."""
  rng = np.random.default_rng(0)
  y, x = np.mgrid[:32, :32] / 16.0 - 1.0
  mask = (np.hypot(x, y) < 0.7).astype(np.float32)
  paint = np.where(y[..., None] < 0.0, [0.9, 0.2, 0.1], [0.1, 0.3, 0.9])
  images = rng.random((10, 32, 32, 3))
  images = np.where(mask[..., None] > 0.0, paint, images).astype(np.float32)
  return images, np.repeat(mask[None], 10, axis=0)


def test_the_loss_matches_the_loop_that_it_vectorises(rng):
  first, second = (rng.normal(size=(2, 5, 3)).astype(np.float32) for _ in range(2))
  first, second = (z / np.linalg.norm(z, axis=-1, keepdims=True) for z in (first, second))
  points = rng.uniform(-1.0, 1.0, (2, 5, 2)).astype(np.float32)
  points[0, 1] = points[0, 0] + 0.01  # Near: not held against each other.
  weight = np.array([[1, 1, 0, 1, 1], [1, 0, 1, 1, 1]], np.float32)
  total = 0.0
  for a, b in ((first, second), (second, first)):
    for i in range(2):
      for m in np.flatnonzero(weight[i]):
        others = [
          n
          for n in np.flatnonzero(weight[i])
          if n == m or np.linalg.norm(points[i, n] - points[i, m]) >= 0.25
        ]
        logits = 10.0 * b[i, others].astype(np.float64) @ a[i, m]
        total += np.log(np.exp(logits).sum()) - 10.0 * a[i, m] @ b[i, m]
  found = contrastive_loss(*(jnp.asarray(v) for v in (first, second, points, weight)))
  np.testing.assert_allclose(found, total / (2.0 * weight.sum()), rtol=1e-5)


def test_without_a_place_that_both_views_show_the_loss_and_its_gradient_are_zero(rng):
  z = jnp.asarray(rng.normal(size=(2, 4, 3)), jnp.float32)
  points = jnp.asarray(rng.uniform(-1.0, 1.0, (2, 4, 2)), jnp.float32)
  value, gradient = jax.value_and_grad(contrastive_loss)(z, z, points, jnp.zeros((2, 4)))
  assert value == 0.0
  np.testing.assert_array_equal(gradient, 0.0)


def test_features_repeat_with_the_seed(folder, optax_promotion):
  def train(*, seed):
    return train_encoder_features(*folder, size=32, steps=2, seed=seed)

  first, again, other = train(seed=0), train(seed=0), train(seed=1)
  images = folder[0][:3]
  maps = np.asarray(first.extract(images))
  assert maps.shape == (3, 4, 4, 64)
  assert np.isfinite(maps).all()
  np.testing.assert_array_equal(maps, again.extract(images))
  np.testing.assert_allclose(first.extract(images[1:2])[0], maps[1], rtol=1e-4, atol=1e-5)
  assert first.name == "encoder"
  assert not np.array_equal(maps, other.extract(images))


def test_images_of_another_size_are_resized(folder, optax_promotion):
  images, masks = (np.repeat(np.repeat(x, 2, axis=1), 2, axis=2) for x in folder)
  made = train_encoder_features(images, masks, size=32, steps=1, seed=0)
  assert made.extract(images[:1]).shape == (1, 4, 4, 64)


def test_images_without_an_object_are_left_out_and_one_is_too_few(folder, optax_promotion):
  images, masks = (np.concatenate([x, x[:2]]) for x in folder)
  masks[10:] = 0.0
  made = train_encoder_features(images, masks, size=32, steps=2, seed=0)
  expected = train_encoder_features(*folder, size=32, steps=2, seed=0)
  np.testing.assert_array_equal(made.extract(images[:3]), expected.extract(images[:3]))
  masks[1:] = 0.0
  with pytest.raises(ValueError, match="found 1 images"):
    train_encoder_features(images, masks, size=32, steps=1, seed=0)


@pytest.mark.parametrize("size", [36, 16])
def test_a_size_that_is_no_multiple_of_the_stride_is_refused(folder, size):
  with pytest.raises(ValueError, match=f"size of {size}.*multiple of 8"):
    train_encoder_features(*folder, size=size, steps=1, seed=0)


def mutual_information(a, b):
  """Normalized by the mean of the two entropies."""
  joint = np.zeros((a.max() + 1, b.max() + 1))
  np.add.at(joint, (a, b), 1.0 / len(a))
  outer = np.outer(joint.sum(axis=1), joint.sum(axis=0))
  shared = (joint * np.log(np.where(joint > 0, joint / np.where(outer > 0, outer, 1), 1))).sum()
  entropy = [-(p[p > 0] * np.log(p[p > 0])).sum() for p in (joint.sum(axis=0), joint.sum(axis=1))]
  return 2.0 * shared / sum(entropy)


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_clusters_of_trained_features_know_more_of_true_parts_than_colour_and_place(
  optax_promotion,
):
  crops = []
  for i in range(60):
    example = render_image(seed=0, split="train", index=i).example
    crops.append(crop(example, square_box(example.box, padding=0.08), image_size=128))
  images, masks, parts = (
    np.stack([getattr(c, name) for c in crops]) for name in ("image", "mask", "parts")
  )
  cells = [x.reshape(60, 16, 8, 16, 8, -1).mean(axis=(2, 4)) for x in (masks, parts, images)]
  inside = cells[0][..., 0] > 0.5
  truth = cells[1][inside][:, 1:].argmax(axis=-1)
  trained = train_encoder_features(images, masks, size=128, steps=300, seed=0)
  y, x = np.meshgrid(*[(np.arange(16) + 0.5) / 8.0 - 1.0] * 2, indexing="ij")
  places = np.broadcast_to(np.stack([x, y], axis=-1), (60, 16, 16, 2))
  colors = np.concatenate([cells[2], places], axis=-1)
  scores = []
  for maps in (np.asarray(trained.extract(images)), colors):
    rows = maps[inside].astype(np.float64)
    labels = [kmeans2(rows, 4, minit="++", seed=s)[1] for s in range(3)]
    scores.append(np.mean([mutual_information(found, truth) for found in labels]))
  assert scores[0] > scores[1] + 0.03
