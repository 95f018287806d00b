"""Part maps of a run: its own, discovered once and kept, or a file's; each where asked for."""

import dataclasses

import numpy as np
import pytest

from tests.parts.transformer_file import write_transformer
from tests.tiny import SmallParts, plain_loss, tiny_config
from umr_jax.config.build import from_dict
from umr_jax.config.settings import Config, DataConfig, PartsConfig, to_dict
from umr_jax.data.dataset import load_dataset
from umr_jax.data.part_store import make_store, read_store
from umr_jax.parts import prepare
from umr_jax.parts.prepare import with_parts

TINY = SmallParts(method="position", features="encoder", steps=2, batch_size=4)


def config_with(cache, origin="given", *, parts: PartsConfig = TINY, **data) -> Config:
  base = tiny_config(cache)
  return dataclasses.replace(
    base,
    data=dataclasses.replace(base.data, parts=origin, **data),
    parts=parts,
    loss=plain_loss(part_vertices=1.0),
  )


@pytest.fixture
def discoveries(monkeypatch):
  """Counts how often parts are discovered."""
  calls = []
  real = prepare.discover

  def counted(*arguments, **options):
    calls.append(options["num_parts"])
    return real(*arguments, **options)

  monkeypatch.setattr(prepare, "discover", counted)
  return calls


def test_a_data_set_s_own_parts_are_kept(tmp_path, discoveries):
  config = config_with(tmp_path)
  dataset = load_dataset(config.data)
  same, store = with_parts(dataset, config)
  assert same is dataset and store is None and not discoveries


def test_without_semantic_terms_nothing_is_discovered(tmp_path, discoveries):
  config = tiny_config(tmp_path)
  config = dataclasses.replace(config, data=dataclasses.replace(config.data, parts="discovered"))
  dataset = load_dataset(config.data)
  assert with_parts(dataset, config) == (dataset, None) and not discoveries


def test_parts_are_discovered_once_and_again_when_a_setting_changes(
  tmp_path, discoveries, monkeypatch
):
  config = config_with(tmp_path, "discovered")
  dataset = load_dataset(config.data)
  found, store = with_parts(dataset, config)
  assert found.part_names == ("part 1", "part 2", "part 3", "part 4")
  example = found.splits["train"][0]
  assert example.parts.shape == (*example.mask.shape, 5)
  assert found.splits["test"][0].parts is None
  assert len(store.names) == 16  # the test images' maps are kept beside
  again, _ = with_parts(dataset, config)
  np.testing.assert_array_equal(again.splits["train"][0].parts, example.parts)
  assert discoveries == [4]
  for changed in (
    config_with(tmp_path, "discovered", part_count=6),
    dataclasses.replace(config, parts=dataclasses.replace(TINY, seed=1)),
  ):
    with_parts(dataset, changed)
  monkeypatch.setattr(DataConfig, "padding", 0.1)
  with_parts(dataset, config)
  assert discoveries == [4, 6, 4, 4]


def test_what_parts_do_not_depend_on_finds_them_again_and_the_content_of_files_counts(
  tmp_path, monkeypatch
):
  dataset = load_dataset(tiny_config(tmp_path).data)
  store = make_store(["an image"], [(0.0, 0.0, 1.0)], np.zeros((1, 2, 2, 5), np.uint8))
  calls = []

  def discover(*arguments, **options):
    calls.append(arguments)
    return store

  monkeypatch.setattr(prepare, "discover", discover)

  def anew(**parts) -> bool:
    """Whether settings lead to a discovery that was not made before."""
    before = len(calls)
    prepare.discovered(dataset, config_with(tmp_path, parts=dataclasses.replace(TINY, **parts)))
    return len(calls) > before

  assert anew() and not anew()
  learned = {"method": "cosegment", "features": "encoder"}
  assert anew(**learned) and not anew(**learned)
  with monkeypatch.context() as patch:
    patch.setattr("umr_jax.parts.encoder_features.VERSION", -1)
    assert anew(**learned)
  first, second = tmp_path / "first.pth", tmp_path / "second.pth"
  first.write_bytes(b"weights")
  published = {"method": "cosegment", "net": "resnet50", "net_weights": str(first)}
  assert anew(**published)
  first.rename(second)
  assert not anew(**published | {"net_weights": str(second)})
  second.write_bytes(b"others")
  assert anew(**published | {"net_weights": str(second)})
  with pytest.raises(FileNotFoundError, match=r"first\.pth.*resnet50"):
    anew(**published)
  # Without steps there is no network, and no file is looked for.
  assert anew(**published, steps=0)


def test_a_damaged_store_is_discovered_again(tmp_path, discoveries):
  config = config_with(tmp_path, "discovered")
  dataset = load_dataset(config.data)
  with_parts(dataset, config)
  (file,) = tmp_path.glob("parts-*.npz")
  file.write_bytes(file.read_bytes()[:100])
  _, store = with_parts(dataset, config)
  assert len(discoveries) == 2
  np.testing.assert_array_equal(read_store(file).maps, store.maps)


def test_parts_from_a_file(tmp_path, discoveries):
  config = config_with(tmp_path, "discovered")
  dataset = load_dataset(config.data)
  with_parts(dataset, config)
  (file,) = tmp_path.glob("parts-*.npz")
  given = config_with(tmp_path, "file", part_file=str(file))
  found, _ = with_parts(load_dataset(given.data), given)
  assert found.part_names[0] == "part 1" and len(discoveries) == 1
  missing = config_with(tmp_path, "file", part_file=str(tmp_path / "none.npz"))
  with pytest.raises(FileNotFoundError, match=r"none\.npz"):
    with_parts(dataset, missing)


METHODS = {
  "factors of features learned here": {},
  "a network that learns factors": {"steps": 2},
  "a file's features": {"features": "dino", "feature_size": 70},
  "scops": {"method": "scops", "steps": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("settings", METHODS.values(), ids=METHODS)
def test_every_method_goes_from_images_to_maps(tmp_path, settings, standard_promotion):
  parts = dataclasses.replace(
    TINY, **{"method": "cosegment", "steps": 0, "feature_size": 64} | settings
  )
  if parts.features == "dino":
    parts = dataclasses.replace(parts, feature_file=str(tmp_path / "dino.safetensors"))
    write_transformer(parts.feature_file, seed=0)
  config = config_with(tmp_path, "discovered", parts=parts, part_count=3)
  found, store = with_parts(load_dataset(config.data), config)
  assert store.maps.shape[1:] == (16, 16, 4)
  inside = found.splits["train"][0].mask >= 0.9
  assert found.splits["train"][0].parts[inside][:, 1:].sum() > 0.5 * inside.sum()


def test_each_method_has_the_losses_of_its_own():
  scops, factors = (PartsConfig(method=name, steps=9).weights for name in ("scops", "cosegment"))
  assert scops.supervision == 0.0 and min(scops[1:]) > 0.0
  assert factors == (1.0, 0.0, 1.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
  ("nested", "message"),
  [
    ({"parts": {"method": "magic"}}, "parts.method"),
    ({"parts": {"method": "scops"}}, "needs parts.steps"),
    ({"parts": {"net_weights": "resnet50.pth"}}, "parts.net=small"),
    ({"data": {"parts": "file"}}, "data.part_file need each other"),
    ({"data": {"part_file": "x.npz"}}, "data.part_file need each other"),
  ],
)
def test_settings_that_cannot_be_meant_are_refused(nested, message):
  with pytest.raises(ValueError, match=message):
    from_dict(nested)
  assert from_dict(to_dict(Config())) == Config()
