"""The features that pose search compares: of every image, in order, a few channels."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.lite0 import random_lite0
from tests.models.torch_file import write_old_torch_file
from tests.tiny import SmallParts, tiny_config
from umr_jax.data.batching import evaluation_batches
from umr_jax.data.dataset import load_dataset
from umr_jax.data.transforms import CropSpec
from umr_jax.init import dense_features as room
from umr_jax.init.dense_features import dense_features, encoder_maps
from umr_jax.models.framed_images import COMPONENTS
from umr_jax.models.frozen import FrozenEfficientNet, frozen_efficientnet
from umr_jax.parts.crops import batches
from umr_jax.parts.features import Features

PADDING = 0.05
SMALL = SmallParts(image_size=64, feature_size=64)
CELL = 8


def cell_pixels(images):
  """The colours of 8 x 8 pixels, in the place of a frozen network: 192 channels."""
  batch, side = images.shape[0], images.shape[1] // CELL
  cells = images.reshape(batch, side, CELL, side, CELL, 3)
  return jnp.moveaxis(cells, 3, 2).reshape(batch, side, side, -1)


@pytest.fixture
def split(tmp_path):
  return load_dataset(tiny_config(tmp_path).data).splits["train"]


@pytest.fixture(autouse=True)
def colors(monkeypatch):
  monkeypatch.setattr(
    room, "load_features", lambda crops, settings: Features(cell_pixels, "efficientnet")
  )


def test_every_image_has_its_maps_in_the_frame_of_its_crop(split):
  maps = dense_features(split, SMALL, padding=PADDING)
  assert maps.features.shape == (len(split), 8, 8, COMPONENTS)
  few = maps.leading(4)
  kept = few.features / maps.features[..., :4]
  np.testing.assert_allclose(kept, np.sqrt(COMPONENTS / 4), rtol=1e-5)
  crops = [crop for _, found in batches(split, 64, PADDING) for crop in found]
  np.testing.assert_allclose(maps.masks, [crop.mask for crop in crops], atol=1e-6)
  inside = maps.masks.reshape(-1, 8, 8, 8, 8).mean(axis=(2, 4)) > 0.99
  norm = np.square(maps.leading(24).features[inside]).sum(axis=-1).mean()
  assert 0.3 < norm < 1.5
  alike = dense_features(split, SMALL, padding=PADDING)
  np.testing.assert_array_equal(alike.features, maps.features)


def test_maps_of_the_encoder_are_what_a_prediction_has(split, tmp_path):
  file = tmp_path / "lite0.pth"
  write_old_torch_file(file, random_lite0())
  spec = CropSpec(image_size=64, padding=PADDING)
  maps = encoder_maps(split, file, spec=spec)
  assert maps.features.shape == (len(split), 12, 12, 112)
  batch, crops = next(evaluation_batches(split, spec, batch_size=3, parts=False))
  weights = {"frozen": frozen_efficientnet(file, path=())}
  expected = FrozenEfficientNet().apply(weights, jnp.asarray(batch.image))[-1]
  scale = np.abs(expected).max()
  np.testing.assert_allclose(maps.features[:3], expected, rtol=1e-4, atol=1e-5 * scale)
  np.testing.assert_array_equal(maps.masks[:3], [crop.mask for crop in crops])


def test_the_channels_are_found_on_some_of_many_images(split, monkeypatch):
  monkeypatch.setattr(room, "_PROJECTED", 4)
  fitted = []
  real = room.fit_projection
  monkeypatch.setattr(
    room, "fit_projection", lambda *given: fitted.append(len(given[0])) or real(*given)
  )
  assert len(dense_features(split, SMALL, padding=PADDING).features) == len(split)
  assert fitted == [4]
