"""A user's folder: every kind of file it may hold, and every kind of damage."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from umr_jax.data.folder import FolderBuilder
from umr_jax.data.synthetic import project
from umr_jax.data.transforms import crop, square_box

HEIGHT, WIDTH = 40, 60


@pytest.fixture
def folder(tmp_path):
  for kind in ("images", "masks"):
    (tmp_path / kind).mkdir()
  return tmp_path


def _disc(height=HEIGHT, width=WIDTH, x=30.0, y=20.0, radius=10.0):
  rows, columns = np.mgrid[:height, :width] + 0.5
  return np.hypot(columns - x, rows - y) < radius


def _image(mask):
  image = np.full((*mask.shape, 3), [40, 160, 60], np.uint8)
  image[mask] = [200, 50, 30]
  return Image.fromarray(image)


def _add(folder, name, mask=None, suffix=".jpg"):
  mask = _disc() if mask is None else mask
  options = {"quality": 95} if suffix.lower() in (".jpg", ".jpeg") else {}
  _image(mask).save(folder / "images" / f"{name}{suffix}", **options)
  Image.fromarray(np.uint8(255 * mask)).save(folder / "masks" / f"{name}.png")


def _build(folder, *, test_fraction=0.25, split_seed=0, margin=0.25):
  builder = FolderBuilder(folder, test_fraction=test_fraction, split_seed=split_seed, margin=margin)
  examples = {example.name: example for example in builder.examples()}
  return examples, builder.contents()


def _write(folder, name, value):
  (folder / name).write_text(json.dumps(value))


def test_every_suffix_in_any_case_is_read_and_other_files_are_ignored(folder):
  for index, suffix in enumerate([".jpg", ".JPEG", ".PNG", ".webp"]):
    _add(folder, f"n{index}", suffix=suffix)
  (folder / "images" / "notes.txt").write_text("x")
  (folder / "images" / "._n0.jpg").write_bytes(b"mac")
  (folder / "README.md").write_text("x")
  examples, contents = _build(folder)
  assert list(examples) == ["n0", "n1", "n2", "n3"]
  assert contents.skipped == []
  for example in examples.values():
    assert np.abs(example.image[example.mask > 0.5].mean(axis=0) - [200, 50, 30]).max() < 20


def _mask_files():
  disc = _disc()
  byte = Image.fromarray(np.uint8(255 * disc))
  palette = Image.fromarray(np.uint8(disc))
  palette.putpalette([0, 0, 0, 128, 0, 0])
  grey_palette = Image.fromarray(np.uint8(~disc))  # index 0 is white
  grey_palette.putpalette([255, 255, 255, 0, 0, 0])
  red = Image.fromarray(np.uint8(disc[..., None] * [255, 0, 0]))
  cut_out = np.full((*disc.shape, 4), 90, np.uint8)
  cut_out[..., 3] = 255 * disc
  opaque = np.dstack([np.uint8(255 * disc)] * 3 + [np.full(disc.shape, 255, np.uint8)])
  return {
    "8 bit": byte,
    "1 bit": byte.convert("1"),
    "0 or 1": Image.fromarray(np.uint8(disc)),
    "16 bit": Image.fromarray(np.uint16(65535 * disc)),
    "16 bit 0 or 1": Image.fromarray(np.uint16(disc)),
    "palette": palette,
    "grey palette": grey_palette,
    "RGB": byte.convert("RGB"),
    "one colour": red,
    "alpha": Image.fromarray(cut_out),
    "opaque alpha": Image.fromarray(opaque),
  }


@pytest.mark.parametrize("kind", list(_mask_files()))
def test_masks_of_every_kind_of_png_are_the_same_disc(folder, kind):
  _add(folder, "a")
  _mask_files()[kind].save(folder / "masks" / "a.png")
  examples, _ = _build(folder)
  window = examples["a"]
  assert window.box[2] - window.box[0] == pytest.approx(20.0)
  assert window.mask.sum() == pytest.approx(_disc().sum())


def test_a_soft_mask_keeps_its_values(folder):
  _add(folder, "a")
  soft = np.where(_disc(), 200, 50).astype(np.uint8)
  Image.fromarray(soft).save(folder / "masks" / "a.png")
  examples, _ = _build(folder)
  assert set(np.unique(np.round(255 * examples["a"].mask))) == {50.0, 200.0}


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_an_alpha_channel_serves_as_mask_and_shows_white(folder, mode):
  disc = _disc()
  image = np.dstack([np.zeros((*disc.shape, 3), np.uint8), np.uint8(255 * disc)])
  Image.fromarray(image).convert(mode).save(folder / "images" / "a.png")
  examples, _ = _build(folder)
  np.testing.assert_array_equal(examples["a"].mask.sum(), disc.sum())
  assert (examples["a"].image[examples["a"].mask < 0.5] == 255).all()
  assert (examples["a"].image[examples["a"].mask > 0.5] == 0).all()


def test_grey_cmyk_and_16_bit_photographs_become_rgb(folder):
  disc = _disc()
  for name, suffix in (("grey", ".jpg"), ("cmyk", ".jpg"), ("deep", ".png")):
    _add(folder, name, suffix=suffix)
  _image(disc).convert("L").save(folder / "images" / "grey.jpg")
  _image(disc).convert("CMYK").save(folder / "images" / "cmyk.jpg")
  Image.fromarray(np.uint16(30000 * disc)).save(folder / "images" / "deep.png")
  examples, _ = _build(folder)
  assert len(examples) == 3
  assert all(example.image.shape[2] == 3 for example in examples.values())
  deep = examples["deep"]
  np.testing.assert_allclose(deep.image[deep.mask > 0.5], round(255 * 30000 / 65535), atol=1)


def test_the_exif_orientation_is_honoured(folder):
  upright = _disc(height=60, width=40, x=20.0, y=15.0)
  _add(folder, "a", mask=upright)
  # Orientation 6: the file holds the image turned left by a quarter.
  exif = Image.Exif()
  exif[0x0112] = 6
  turned = _image(upright).transpose(Image.Transpose.ROTATE_90)
  turned.save(folder / "images" / "a.jpg", exif=exif, quality=95)
  examples, contents = _build(folder)
  assert contents.skipped == []
  example = examples["a"]
  assert np.abs(example.image[example.mask > 0.5].mean(axis=0) - [200, 50, 30]).max() < 20


def test_every_bad_item_is_skipped_with_its_reason(folder):
  _add(folder, "good")
  for name in ("truncated", "text", "black", "nomask", "empty", "huge", "broken"):
    _add(folder, name)
  whole = (folder / "images" / "truncated.jpg").read_bytes()
  (folder / "images" / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
  (folder / "images" / "text.jpg").write_text("not an image")
  (folder / "images" / "empty.jpg").write_bytes(b"")
  Image.new("L", (WIDTH, HEIGHT)).save(folder / "masks" / "black.png")
  Image.new("L", (WIDTH, HEIGHT + 1), 255).save(folder / "masks" / "huge.png")
  _add(folder, "small", mask=_disc(radius=2.0))
  _add(folder, "pixel", mask=np.ones((1, 1), bool))
  (folder / "masks" / "nomask.png").unlink()
  (folder / "masks" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n rubbish")
  _add(folder, "lonely")
  (folder / "images" / "lonely.jpg").unlink()
  _image(_disc()).save(folder / "images" / "good.png")  # the same name twice

  examples, contents = _build(folder)
  assert list(examples) == ["good"]
  reasons = dict(contents.skipped)
  expected = {
    "truncated": "truncated",
    "text": "cannot be read",
    "empty": "cannot be read",
    "black": "empty",
    "huge": "60 x 41 pixels, the image .* 60 x 40",
    "small": "pixels long",
    "pixel": "1 pixels long",
    "nomask": "no masks/nomask.png",
    "broken": "masks/broken.png cannot be read",
    "lonely": "no partner",
    "good.png": "same name",
  }
  assert set(reasons) == set(expected)
  for name, reason in expected.items():
    assert re.search(reason, reasons[name]), reasons[name]


def test_an_opaque_alpha_channel_is_no_silhouette(folder):
  _image(_disc()).convert("RGBA").save(folder / "images" / "a.png")
  with pytest.raises(ValueError, match="no alpha channel that is not full"):
    _build(folder)


def test_a_folder_with_nothing_usable_lists_the_reasons(folder):
  _add(folder, "dark")
  Image.new("L", (WIDTH, HEIGHT)).save(folder / "masks" / "dark.png")
  with pytest.raises(ValueError, match=r"(?s)nothing to learn.*dark: the mask is empty"):
    _build(folder)
  (folder / "images" / "dark.jpg").unlink()
  with pytest.raises(ValueError, match="no image of it is usable"):
    _build(folder)


def test_a_missing_folder_or_images_folder_says_what_is_expected(tmp_path):
  (tmp_path / "Images").mkdir()
  with pytest.raises(FileNotFoundError, match=r"holds \['Images'\].*images/NAME.jpg"):
    _build(tmp_path)
  with pytest.raises(FileNotFoundError, match="does not exist"):
    _build(tmp_path / "nowhere")


def test_splits_follow_splits_json(folder):
  for name in "abcd":
    _add(folder, name)
  _write(folder, "splits.json", {"train": ["c", "a.jpg", "zzz"], "test": ["b"]})
  examples, contents = _build(folder)
  names = list(examples)
  assert [names[i] for i in contents.splits["train"]] == ["c", "a"]
  assert [names[i] for i in contents.splits["test"]] == ["b"]
  assert contents.skipped == [
    ("zzz", "train of splits.json names it, but images/ does not hold it")
  ]


@pytest.mark.parametrize(
  ("value", "message"),
  [
    ({"train": ["a"], "test": ["a"]}, "at once"),
    ({"train": "a"}, "list of image names"),
    ({"test": ["a"]}, "training split"),
    ([], "JSON object"),
  ],
)
def test_bad_splits_are_refused(folder, value, message):
  _add(folder, "a")
  _write(folder, "splits.json", value)
  with pytest.raises(ValueError, match=message):
    _build(folder)


def test_malformed_json_names_the_file(folder):
  _add(folder, "a")
  (folder / "cameras.json").write_text("{")
  with pytest.raises(ValueError, match=r"cameras\.json is not readable JSON"):
    _build(folder)


def test_the_seeded_split_has_its_share_and_depends_on_its_seed(folder):
  for index in range(12):
    _add(folder, f"n{index:02d}")
  _, first = _build(folder)
  assert len(first.splits["test"]) == 3
  assert sorted(first.splits["train"] + first.splits["test"]) == list(range(12))
  assert _build(folder)[1].splits == first.splits
  assert _build(folder, split_seed=1)[1].splits != first.splits
  assert len(_build(folder, test_fraction=0.0)[1].splits["test"]) == 0
  assert len(_build(folder, test_fraction=0.001)[1].splits["test"]) == 1
  with pytest.raises(ValueError, match="test_fraction"):
    _build(folder, test_fraction=1.0)


def test_one_image_is_for_training(folder):
  _add(folder, "only")
  assert _build(folder)[1].splits == {"train": [0], "test": []}


def _annotate(folder, points=None):
  """One image with a mesh, its camera and its keypoints, all of a square of half side 10 px."""
  vertices = np.array([[0, -1, -1], [0, 1, -1], [0, 1, 1], [0, -1, 1]], np.float32)
  rotation = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]])
  # The frame of a 60 x 40 image is the square of 60 px about its centre.
  scale, tx, ty = 10.0 / 30.0, (25.0 - 30.0) / 30.0, (18.0 - 20.0) / 30.0
  mask = np.zeros((HEIGHT, WIDTH), bool)
  mask[8:28, 15:35] = True
  _add(folder, "a", mask=mask)
  entry = {"rotation": rotation.tolist(), "scale": scale, "tx": tx, "ty": ty}
  _write(folder, "cameras.json", {"a": entry})
  (folder / "meshes").mkdir()
  faces = np.array([[0, 1, 2], [0, 2, 3]])
  np.savez(folder / "meshes" / "square.npz", vertices=vertices, faces=faces)
  _write(folder, "shapes.json", {"a": "square"})
  points = points or [[15.0, 28.0, 1], [35.0, 28.0, 1], [None, None, 0]]
  keypoints = {"names": ["l", "r", "m"], "flip": [1, 0, 2], "points": {"a": points}}
  _write(folder, "keypoints.json", keypoints)
  return vertices


@pytest.mark.parametrize("margin", [0.25, 30.0])
def test_cameras_keypoints_and_meshes_stay_with_the_pixels(folder, margin):
  vertices = _annotate(folder)
  examples, contents = _build(folder, margin=margin)
  assert contents.skipped == []
  assert contents.keypoint_names == ("l", "r", "m") and contents.keypoint_flip == (1, 0, 2)
  example = examples["a"]
  assert example.shape == "square"
  np.testing.assert_array_equal(contents.meshes["square"][0], vertices)
  cut = crop(example, square_box(example.box, padding=0.0), image_size=32)
  # The crop is the mask's box, the square's image: everything lands on its corners.
  tolerance = 1e-5 if margin < 1 else 0.06  # the second is resampled: its box is whole pixels
  screen = project(vertices, cut.camera)[:, :2]
  np.testing.assert_allclose(screen, [[-1, 1], [1, 1], [1, -1], [-1, -1]], atol=tolerance)
  np.testing.assert_allclose(cut.keypoints[:2], [[-1, 1, 1], [1, 1, 1]], atol=tolerance)
  assert cut.keypoints[2, 2] == 0.0 and np.isfinite(cut.keypoints).all()


def test_a_large_photograph_is_stored_small_with_its_annotations(folder):
  vertices = _annotate(folder)
  # The same scene at 40 times the size.
  _image(_disc()).resize((2400, 1600)).save(folder / "images" / "a.jpg")
  mask = np.zeros((1600, 2400), np.uint8)
  mask[320:1120, 600:1400] = 255
  Image.fromarray(mask).save(folder / "masks" / "a.png")
  examples, _ = _build(folder)
  example = examples["a"]
  assert max(example.mask.shape) <= 512
  cut = crop(example, square_box(example.box, padding=0.0), image_size=32)
  screen = project(vertices, cut.camera)[:, :2]
  np.testing.assert_allclose(screen, [[-1, 1], [1, 1], [1, -1], [-1, -1]], atol=0.01)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"scale": -1.0}, "positive"),
    ({"rotation": [[1, 0, 0], [0, 1, 0], [0, 0, -1]]}, "not a rotation"),
    ({"rotation": [1, 2]}, "needs rotation"),
    ({"tx": None}, "finite|needs"),
  ],
)
def test_a_bad_camera_is_listed_and_its_image_stays(folder, change, message):
  _annotate(folder)
  cameras = json.loads((folder / "cameras.json").read_text())
  cameras["a"] |= change
  _write(folder, "cameras.json", cameras)
  examples, contents = _build(folder)
  assert examples["a"].camera is None and examples["a"].keypoints[0, 2] == 1.0
  assert re.search(message, dict(contents.skipped)["a"])


def test_bad_keypoints_are_listed_and_bad_flips_refused(folder):
  _annotate(folder, points=[[None, 1.0, 1]] * 3)
  examples, contents = _build(folder)
  assert (examples["a"].keypoints[:, 2] == 0.0).all() and examples["a"].camera is not None
  assert "no finite position" in dict(contents.skipped)["a"]
  for flip in ([1.0, 0.0, 2.0], [None, 1, 2], "102", None):
    _write(folder, "keypoints.json", {"names": ["l", "r", "m"], "flip": flip, "points": {}})
    with pytest.raises(ValueError, match="permutation"):
      _build(folder)
  _write(folder, "keypoints.json", {"names": ["l", "r", "m"], "flip": [1, 2, 0], "points": {}})
  with pytest.raises(ValueError, match="undo itself"):
    _build(folder)
  _write(folder, "keypoints.json", {"names": ["l", "r", "m"], "flip": [1, 0], "points": {}})
  with pytest.raises(ValueError, match="permutation"):
    _build(folder)


def test_an_image_without_keypoints_gets_hidden_ones(folder):
  _annotate(folder)
  _add(folder, "b")
  examples, _ = _build(folder)
  assert (examples["b"].keypoints[:, 2] == 0.0).all()


def test_a_bad_mesh_is_listed_and_its_images_stay(folder):
  _annotate(folder)
  np.savez(folder / "meshes" / "square.npz", vertices=np.zeros((2, 3)), faces=[[0, 1, 7]])
  examples, contents = _build(folder)
  assert examples["a"].shape is None
  assert "outside" in dict(contents.skipped)["square"]


def test_part_maps_as_labels_and_as_probabilities_agree(folder):
  labels = np.where(_disc(), 2, 0)
  labels[:, :30] = np.minimum(labels[:, :30], 1)
  (folder / "parts").mkdir()
  _add(folder, "a")
  np.savez(folder / "parts" / "a.npz", parts=labels)
  first, contents = _build(folder)
  assert contents.part_names == ("part1", "part2")
  np.savez(folder / "parts" / "a.npz", probs=2.0 * np.eye(3)[labels])
  second, _ = _build(folder)
  np.testing.assert_allclose(first["a"].parts, second["a"].parts)
  np.testing.assert_allclose(first["a"].parts[..., 0], 1.0 - first["a"].mask, atol=1e-6)


@pytest.mark.parametrize(
  ("arrays", "message"),
  [
    ({"probs": np.ones((HEIGHT, WIDTH, 4))}, r"expected \[H, W, 3\]"),
    ({"probs": np.full((HEIGHT, WIDTH, 3), np.nan)}, "non-finite"),
    ({"probs": np.ones((HEIGHT, WIDTH - 1, 3))}, "part map is 59 x 40"),
    ({"parts": np.full((HEIGHT, WIDTH), 3)}, "labels"),
    ({"other": np.zeros(2)}, "neither"),
    ({"probs": np.full((HEIGHT, WIDTH, 3), "x")}, "expected numbers"),
    ({"parts": np.full((HEIGHT, WIDTH), "x")}, "expected numbers"),
  ],
)
def test_a_bad_part_map_is_listed_and_its_image_stays(folder, arrays, message):
  (folder / "parts").mkdir()
  _add(folder, "a")
  np.savez(folder / "parts" / "a.npz", probs=np.ones((HEIGHT, WIDTH, 3)))
  _add(folder, "b")
  np.savez(folder / "parts" / "b.npz", **arrays)
  examples, contents = _build(folder)
  assert list(examples) == ["a", "b"]
  assert examples["a"].parts is not None and examples["b"].parts is None
  assert re.search(message, dict(contents.skipped)["b"])


def test_what_belongs_to_no_image_is_listed(folder):
  _annotate(folder)
  (folder / "parts").mkdir()
  for name in ("a", "stray"):
    np.savez(folder / "parts" / f"{name}.npz", probs=np.ones((HEIGHT, WIDTH, 3)))
  for file in ("cameras.json", "shapes.json"):
    entries = json.loads((folder / file).read_text())
    _write(folder, file, entries | {"stray": entries["a"]})
  keypoints = json.loads((folder / "keypoints.json").read_text())
  keypoints["points"]["stray"] = keypoints["points"]["a"]
  _write(folder, "keypoints.json", keypoints)
  examples, contents = _build(folder)
  assert list(examples) == ["a"]
  assert dict(contents.skipped).keys() == {"parts", "cameras.json", "shapes.json", "keypoints.json"}
  assert all("does not hold: stray" in reason for _, reason in contents.skipped)


def test_an_unmatched_part_map_does_not_decide_how_many_parts_there_are(folder):
  (folder / "parts").mkdir()
  for name, count in (("AAA", 9), ("a", 3)):
    np.savez(folder / "parts" / f"{name}.npz", probs=np.ones((HEIGHT, WIDTH, count)))
  _add(folder, "a")
  for index in range(12):
    _add(folder, f"b{index:02}")
  examples, contents = _build(folder)
  assert examples["a"].parts.shape[-1] == 3 and len(contents.part_names) == 2
  assert examples["b00"].parts is None
  lacking = [reason for _, reason in contents.skipped if "without part map" in reason]
  assert len(lacking) == 1 and "b09 and 2 more" in lacking[0]
