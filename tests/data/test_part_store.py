"""Part stores: what comes back is what went in, on its image's own pixels, for training alone."""

import dataclasses

import numpy as np
import pytest

from tests.tiny import tiny_config
from umr_jax.data.dataset import load_dataset
from umr_jax.data.image_files import to_bytes
from umr_jax.data.part_store import (
  from_bytes,
  make_store,
  paste_part_map,
  read_store,
  with_part_maps,
  write_store,
)
from umr_jax.data.transforms import crop, square_box


def blocks(size):
  """A map of background and two parts, in blocks of a quarter of its side."""
  maps = np.zeros((size, size, 3), np.float32)
  quarter = size // 4
  maps[..., 0] = 1.0
  maps[quarter : 2 * quarter, quarter : 3 * quarter] = [0.0, 1.0, 0.0]
  maps[2 * quarter : 3 * quarter, quarter : 3 * quarter] = [0.0, 0.0, 1.0]
  return maps


def test_a_store_survives_its_file(tmp_path, rng):
  maps = rng.integers(0, 256, (3, 8, 8, 5)).astype(np.uint8)
  store = make_store(["a", "ü/b", "c"], [(0.0, 1.5, 9.0)] * 3, maps, mirror_agreement=0.75)
  write_store(tmp_path / "parts" / "parts.npz", store)
  again = read_store(tmp_path / "parts" / "parts.npz")
  assert again.names == ("a", "ü/b", "c")
  assert again.part_names == ("part 1", "part 2", "part 3", "part 4")
  np.testing.assert_array_equal(again.maps, maps)
  np.testing.assert_array_equal(again.squares, [[0.0, 1.5, 9.0]] * 3)
  assert again.mirror_agreement == 0.75


def test_bytes_keep_maps_to_half_a_level(rng):
  maps = rng.random((2, 4, 4, 3)).astype(np.float32)
  kept = to_bytes(maps)
  assert kept.dtype == np.uint8 and from_bytes(kept).dtype == np.float32
  np.testing.assert_allclose(from_bytes(kept), maps, atol=0.5 / 255.0 + 1e-6)
  np.testing.assert_array_equal(from_bytes(to_bytes(blocks(8))), blocks(8))


@pytest.mark.parametrize("content", [b"", b"PK nothing", None], ids=["empty", "other", "fewer"])
def test_a_file_that_holds_something_else_is_refused_by_name(tmp_path, content):
  path = tmp_path / "parts.npz"
  if content is None:
    np.savez(
      path,
      names=np.array(["a", "b"]),
      squares=np.zeros((1, 3)),
      maps=np.zeros((1, 2, 2, 3)),
      mirror_agreement=1.0,
    )
  else:
    path.write_bytes(content)
  with pytest.raises(ValueError, match=r"parts\.npz holds"):
    read_store(path)
  with pytest.raises(FileNotFoundError, match="train_scops"):
    read_store(tmp_path / "none.npz")


@pytest.mark.parametrize("shape", [(40, 40), (30, 50), (50, 30)])
def test_a_map_lies_on_the_image_where_its_crop_was_cut(shape):
  # The crop reaches beyond the image on every side but one.
  square = (-5.0, 6.0, 48.0)
  placed = paste_part_map(blocks(16), square, shape)
  assert placed.shape == (*shape, 3)
  np.testing.assert_allclose(placed.sum(-1), 1.0, atol=1e-5)
  for row in range(shape[0]):
    for column in range(shape[1]):
      x, y = (column + 0.5 + 5.0) / 48.0 * 16.0, (row + 0.5 - 6.0) / 48.0 * 16.0
      near_border = min(abs(x / 4 - round(x / 4)), abs(y / 4 - round(y / 4))) < 0.2
      if near_border:
        continue
      inside = 0 <= x < 16 and 0 <= y < 16
      expected = blocks(16)[int(y), int(x)] if inside else [1.0, 0.0, 0.0]
      np.testing.assert_allclose(placed[row, column], expected, atol=1e-5)


def test_cutting_the_crop_again_gives_the_map_back(tmp_path):
  data = load_dataset(tiny_config(tmp_path).data)
  train = data.splits["train"]
  names = [train[i].name for i in range(len(train))]
  squares = [square_box(train[i].box, padding=0.05) for i in range(len(train))]
  maps = np.stack([(255 * blocks(48)).astype(np.uint8)] * len(train))
  found = with_part_maps(data, make_store(names, squares, maps))
  assert found.part_names == ("part 1", "part 2")
  assert found.splits["train"].part_channels == 3
  again = crop(found.splits["train"][1], squares[1], image_size=48).parts
  wrong = np.abs(again - blocks(48)).max(axis=-1) > 0.3
  assert wrong.mean() < 0.02  # only where two blocks meet


def test_test_images_get_no_maps_and_other_names_are_refused(tmp_path):
  data = load_dataset(tiny_config(tmp_path).data)
  names = [data.splits[s][0].name for s in ("train", "test")]
  maps = np.stack([(255 * blocks(8)).astype(np.uint8)] * 2)
  found = with_part_maps(data, make_store(names, [(0.0, 0.0, 160.0)] * 2, maps))
  assert found.splits["train"][0].parts is not None
  assert found.splits["train"][1].parts is None  # not in the store
  assert found.splits["test"][0].parts is None
  assert data.splits["train"][0].parts.shape[-1] == 1 + len(data.part_names)  # as it was
  others = make_store(["x"], [(0.0, 0.0, 1.0)], maps[:1])
  with pytest.raises(ValueError, match="other images"):
    with_part_maps(data, others)


def test_own_maps_are_hidden_where_others_are_asked_for(tmp_path):
  settings = dataclasses.replace(tiny_config(tmp_path).data, parts="discovered")
  data = load_dataset(settings)
  assert data.part_names == () and data.splits["train"][0].parts is None
  assert data.fingerprint == load_dataset(tiny_config(tmp_path).data).fingerprint
