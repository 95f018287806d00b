"""CUB-200-2011 in its published files and in CMR's, as small fakes of the same formats."""

import dataclasses
import hashlib
import pathlib
import re
import shutil
import tarfile

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import io as scipy_io
from scipy.spatial.transform import Rotation

from umr_jax.data import cub
from umr_jax.data.cub import FROM_LEFT_BACK_UP, KEYPOINT_FLIP, KEYPOINT_NAMES, cub_builder
from umr_jax.data.example import frame_square
from umr_jax.data.transforms import keypoints_to_square
from umr_jax.geometry import camera

HEIGHT, WIDTH = 40, 60
FOLDER = "001.Black_footed_Albatross"
# The bird of every image: rows 8 to 27, columns 15 to 34.
BOX = (15.0, 8.0, 35.0, 28.0)


def _build(root, *, annotations=None, train=6, test=7, margin=10.0):
  builder = cub_builder(
    root,
    annotations=annotations,
    min_keypoints_train=train,
    min_keypoints_test=test,
    margin=margin,
  )
  return {example.name: example for example in builder.examples()}, builder.contents()


def _image(path):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.full((HEIGHT, WIDTH, 3), [40, 160, 60], np.uint8)).save(path)


def _published(parent, birds):
  """Writes CUB_200_2011; `birds` is a list of (is_train, number of visible keypoints)."""
  root = parent / "CUB_200_2011"
  (root / "parts").mkdir(parents=True)
  (root / "segmentations" / FOLDER).mkdir(parents=True)
  images, split, parts = [], [], []
  for key, (is_train, visible) in enumerate(birds, start=1):
    images.append(f"{key} {FOLDER}/bird_{key}.jpg")
    split.append(f"{key} {is_train}")
    for part in range(1, 16):
      shown = part <= visible
      parts.append(f"{key} {part} " + (f"{15.0 + part} {10.0 + part} 1" if shown else "0.0 0.0 0"))
    _image(root / "images" / FOLDER / f"bird_{key}.jpg")
    grey = np.zeros((HEIGHT, WIDTH), np.uint8)
    grey[8:28, 15:35] = 255
    grey[8:28, 35:37] = 102  # two of five annotators
    Image.fromarray(grey).save(root / "segmentations" / FOLDER / f"bird_{key}.png")
  (root / "images.txt").write_text("\n".join(images) + "\n")
  (root / "train_test_split.txt").write_text("\n".join(split) + "\n")
  (root / "parts" / "part_locs.txt").write_text("\n".join(parts) + "\n")
  return root


def test_the_flip_swaps_left_and_right():
  for index, name in enumerate(KEYPOINT_NAMES):
    other = {"L": "R", "R": "L"}.get(name[0], name[0]) + name[1:]
    assert KEYPOINT_NAMES[KEYPOINT_FLIP[index]] == other


@pytest.mark.parametrize("place", ["root", "parent"])
def test_published_files_give_split_keypoints_and_masks(tmp_path, place):
  root = _published(tmp_path, [(1, 6), (0, 7), (1, 15)])
  examples, contents = _build(root if place == "root" else tmp_path)
  assert list(examples) == ["bird_1", "bird_2", "bird_3"]
  assert contents.splits == {"train": [0, 2], "test": [1]}
  assert contents.skipped == [] and contents.meshes == {}
  assert contents.keypoint_names == KEYPOINT_NAMES and contents.keypoint_flip == KEYPOINT_FLIP
  example = examples["bird_1"]
  assert example.image.shape == (HEIGHT, WIDTH, 3) and example.box == BOX
  # What two of five annotators saw is not the bird.
  assert set(np.unique(example.mask)) == {0.0, 1.0} and example.mask.sum() == 400.0
  assert example.camera is None and example.shape is None
  expected = np.zeros((15, 3), np.float32)
  # Pixel 1 has its centre at 0.5.
  expected[:6] = [[15.5 + part, 10.5 + part, 1.0] for part in range(6)]
  np.testing.assert_array_equal(example.keypoints, expected)


def test_segmentations_may_lie_beside_the_images(tmp_path):
  root = _published(tmp_path, [(1, 15)])
  (root / "segmentations").rename(tmp_path / "segmentations")
  assert list(_build(root)[0]) == list(_build(tmp_path)[0]) == ["bird_1"]


def test_birds_with_few_visible_keypoints_are_left_out_with_a_reason(tmp_path):
  root = _published(tmp_path, [(1, 6), (1, 5), (0, 6), (0, 7)])
  examples, contents = _build(root)
  assert list(examples) == ["bird_1", "bird_4"]
  assert dict(contents.skipped) == {
    "bird_2": "5 visible keypoints, expected at least 6",
    "bird_3": "6 visible keypoints, expected at least 7",
  }
  assert len(_build(root, train=0, test=0)[0]) == 4


def test_single_bad_files_are_left_out_with_a_reason(tmp_path):
  root = _published(tmp_path, [(1, 15)] * 5)
  (root / "images" / FOLDER / "bird_1.jpg").write_text("not an image")
  (root / "segmentations" / FOLDER / "bird_2.png").unlink()
  Image.new("L", (WIDTH, HEIGHT)).save(root / "segmentations" / FOLDER / "bird_3.png")
  Image.new("L", (WIDTH, HEIGHT + 1), 255).save(root / "segmentations" / FOLDER / "bird_4.png")
  examples, contents = _build(root)
  assert list(examples) == ["bird_5"] and contents.splits == {"train": [0], "test": []}
  reasons = dict(contents.skipped)
  expected = {"bird_1": "cannot be read", "bird_2": "bird_2.png cannot be read"}
  expected |= {"bird_3": "mask is empty", "bird_4": "60 x 41 pixels"}
  assert set(reasons) == set(expected)
  for name, reason in expected.items():
    assert re.search(reason, reasons[name]), reasons[name]


def test_missing_files_say_what_to_extract_where(tmp_path):
  root = _published(tmp_path, [(1, 15)])
  page = r"https://www\.vision\.caltech\.edu/datasets/cub_200_2011/"
  (root / "segmentations").rename(root / "else")
  with pytest.raises(FileNotFoundError, match=rf"(?s)no segmentations\..*{page}"):
    _build(root)
  (root / "parts" / "part_locs.txt").unlink()
  with pytest.raises(FileNotFoundError, match=rf"no parts/part_locs\.txt\..*tgz from {page}"):
    _build(root)
  with pytest.raises(FileNotFoundError, match=r"no images\.txt, no train_test_split\.txt"):
    _build(tmp_path / "nowhere")


@pytest.mark.parametrize(
  ("file", "line", "message"),
  [
    ("images.txt", "2", r"images\.txt, line 2: expected 2 columns, found '2'"),
    ("train_test_split.txt", "2 yes", r"train_test_split\.txt, line 2: .* found 'yes'"),
    ("train_test_split.txt", "3 1", r"train_test_split\.txt lacks the images \['2'\]"),
    ("parts/part_locs.txt", "1 2 3.0 4.0", r"part_locs\.txt, line 2: expected 5 columns"),
    ("parts/part_locs.txt", "1 2 x 4.0 1", r"part_locs\.txt, line 2: the columns are not numbers"),
    ("parts/part_locs.txt", "1 16 3.0 4.0 1", r"part_locs\.txt, line 2: .* from 1 to 15"),
    ("parts/part_locs.txt", "1 2 nan 4.0 1", r"part_locs\.txt, line 2: .* finite"),
    ("parts/part_locs.txt", "9 2 3.0 4.0 1", r"part_locs\.txt, line 2: .* no image 9"),
  ],
)
def test_a_bad_line_is_named(tmp_path, file, line, message):
  root = _published(tmp_path, [(1, 15), (1, 15)])
  lines = (root / file).read_text().splitlines()
  (root / file).write_text("\n".join([lines[0], line, *lines[2:]]))
  with pytest.raises(ValueError, match=message):
    _build(root)


def test_no_bird_for_training_is_an_error_with_the_reasons(tmp_path):
  root = _published(tmp_path, [(1, 5), (0, 15)])
  with pytest.raises(ValueError, match=r"(?s)no image for training.*bird_1: 5 visible"):
    _build(root)


# A shape in CMR's frame: left, back, up.
SHAPE = np.random.default_rng(0).uniform(-1.0, 1.0, (3, 15))


def _motion(seed):
  rotation = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
  return {"scale": 9.0 + seed, "trans": np.array([[25.5], [18.25]]), "rot": rotation}


def _pixels(motion):
  """Where CMR's camera puts the shape, in pixels that count from 1."""
  return motion["scale"] * motion["rot"][:2] @ SHAPE + motion["trans"]


def _structs(entries):
  array = np.empty((1, len(entries)), [(field, object) for field in entries[0]])
  for index, entry in enumerate(entries):
    array[0, index] = tuple(entry.values())
  return array


def _entry(name, motion, visible=15):
  mask = np.zeros((HEIGHT, WIDTH), np.uint8)
  mask[8:28, 15:35] = 1
  shown = np.arange(15) < visible
  return {
    "id": 1.0,
    "rel_path": f"{FOLDER}/{name}.jpg",
    "bbox": {"x1": 16.0, "y1": 9.0, "x2": 35.0, "y2": 28.0},
    "parts": np.vstack([np.where(shown, _pixels(motion), 0.0), shown]),
    "mask": mask,
  }


def _cleaned(parent, *, train=2, cameras=True):
  """Writes CMR's cachedir/cub, and the images; the test split is a single struct."""
  for kind in ("data", "sfm"):
    (parent / "cub" / kind).mkdir(parents=True)
  for split, count in (("train", train), ("val", 1), ("test", 1)):
    names = [f"{split}_{index}" for index in range(count)]
    motions = [_motion(index) for index in range(count)]
    for name in names:
      _image(parent / "CUB_200_2011" / "images" / FOLDER / f"{name}.jpg")
    entries = [_entry(name, motion) for name, motion in zip(names, motions, strict=True)]
    _save(parent, split, entries, motions if cameras else None)
  return parent / "CUB_200_2011", parent / "cub"


def _save(parent, split, entries, motions):
  scipy_io.savemat(
    parent / "cub" / "data" / f"{split}_cub_cleaned.mat", {"images": _structs(entries)}
  )
  if motions is not None:
    contents = {"sfm_anno": _structs(motions), "S": SHAPE}
    scipy_io.savemat(parent / "cub" / "sfm" / f"anno_{split}.mat", contents)


@pytest.mark.parametrize("margin", [0.25, 10.0])
def test_cleaned_annotations_give_keypoints_and_cameras_that_agree(tmp_path, margin):
  root, annotations = _cleaned(tmp_path)
  examples, contents = _build(root, annotations=annotations, margin=margin)
  assert list(examples) == ["train_0", "train_1", "test_0"]  # no validation images
  assert contents.splits == {"train": [0, 1], "test": [2]} and contents.skipped == []
  vertices = (FROM_LEFT_BACK_UP @ SHAPE).T.astype(np.float32)
  for example in examples.values():
    assert example.mask.sum() == 400.0
    frame = frame_square(*example.mask.shape)
    expected = keypoints_to_square(example.keypoints, frame)
    screen = np.asarray(camera.project(jnp.asarray(vertices), jnp.asarray(example.camera)))
    np.testing.assert_allclose(screen[:, :2], expected[:, :2], atol=1e-5)
  if margin > 1.0:
    expected = _pixels(_motion(1)).T - 0.5
    np.testing.assert_allclose(examples["train_1"].keypoints[:, :2], expected, rtol=1e-6)
    assert examples["train_1"].box == BOX


def test_a_cmr_bird_seen_from_its_left_faces_left(tmp_path):
  root, annotations = _cleaned(tmp_path, train=1)
  # Image right is the bird's back, image down its underside, into the scene its right.
  motion = _motion(0) | {"rot": np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]])}
  _save(tmp_path, "train", [_entry("train_0", motion)], [motion])
  example = _build(root, annotations=annotations)[0]["train_0"]
  front, left, up = np.asarray(camera.rotation(jnp.asarray(example.camera))).T
  np.testing.assert_allclose(front, [-1.0, 0.0, 0.0], atol=1e-6)
  np.testing.assert_allclose(left, [0.0, 0.0, -1.0], atol=1e-6)
  np.testing.assert_allclose(up, [0.0, -1.0, 0.0], atol=1e-6)


def test_cleaned_annotations_do_without_cameras_and_drop_as_the_published(tmp_path):
  root, annotations = _cleaned(tmp_path, cameras=False)
  entries = [_entry("train_0", _motion(0), visible=6), _entry("train_1", _motion(1), visible=5)]
  _save(tmp_path, "train", entries, None)
  examples, contents = _build(root, annotations=annotations)
  assert list(examples) == ["train_0", "test_0"]
  assert contents.skipped == [("train_1", "5 visible keypoints, expected at least 6")]
  assert all(example.camera is None for example in examples.values())
  np.testing.assert_array_equal(examples["train_0"].keypoints[6:], 0.0)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"rot": np.diag([1.0, 1.0, -1.0])}, "not a rotation"),
    ({"rot": np.diag([1.0, 1.0, 0.5])}, "not a rotation"),
    ({"rot": np.full((3, 3), np.nan)}, "finite"),
    ({"scale": -1.0}, "positive"),
    ({"trans": np.array([[np.inf], [0.0]])}, "finite"),
  ],
)
def test_a_camera_that_is_none_is_noted_and_its_bird_stays(tmp_path, change, message):
  root, annotations = _cleaned(tmp_path)
  motions = [_motion(0) | change, _motion(1)]
  _save(tmp_path, "train", [_entry(f"train_{i}", _motion(i)) for i in range(2)], motions)
  examples, contents = _build(root, annotations=annotations)
  assert examples["train_0"].camera is None and examples["train_1"].camera is not None
  assert re.search(f"without its camera.*{message}", dict(contents.skipped)["train_0"])


def test_a_slightly_skewed_camera_is_made_a_rotation(tmp_path):
  root, annotations = _cleaned(tmp_path, train=1)
  motion = _motion(0) | {"rot": _motion(0)["rot"] * 1.002}
  _save(tmp_path, "train", [_entry("train_0", motion)], [motion])
  example = _build(root, annotations=annotations)[0]["train_0"]
  rotation = np.asarray(camera.rotation(jnp.asarray(example.camera)))
  expected = _motion(0)["rot"] @ FROM_LEFT_BACK_UP.T
  np.testing.assert_allclose(rotation, expected, atol=1e-6)


def test_malformed_cleaned_annotations_name_file_and_entry(tmp_path):
  root, annotations = _cleaned(tmp_path)
  entries = [_entry("train_0", _motion(0)), _entry("train_1", _motion(1))]
  _save(tmp_path, "train", entries, [_motion(0)])
  with pytest.raises(ValueError, match=r"anno_train\.mat has 1 cameras for 2 images"):
    _build(root, annotations=annotations)
  bad = _entry("train_1", _motion(1)) | {"parts": np.zeros((3, 14))}
  _save(tmp_path, "train", [entries[0], bad], [_motion(0), _motion(1)])
  with pytest.raises(ValueError, match=r"train_cub_cleaned\.mat, entry 2: parts is \(3, 14\)"):
    _build(root, annotations=annotations)
  path = annotations / "data" / "train_cub_cleaned.mat"
  scipy_io.savemat(path, {"others": _structs(entries)})
  with pytest.raises(ValueError, match="holds no structs named 'images'"):
    _build(root, annotations=annotations)
  path.write_bytes(b"rubbish")
  with pytest.raises(ValueError, match=r"train_cub_cleaned\.mat cannot be read"):
    _build(root, annotations=annotations)
  path.unlink()
  with pytest.raises(FileNotFoundError, match=r"no data/train_cub_cleaned\.mat.*cachedir/cub"):
    _build(root, annotations=annotations)


def test_the_settings_follow_files_and_options(tmp_path):
  root = _published(tmp_path, [(1, 15)])

  def settings(**changes):
    options = {"annotations": None, "min_keypoints_train": 6, "min_keypoints_test": 7}
    return cub_builder(root, **(options | {"margin": 0.25} | changes)).settings()

  first = settings()
  assert settings() == first != settings(min_keypoints_train=5)
  with (root / "parts" / "part_locs.txt").open("a") as file:
    file.write("\n")
  assert settings() != first


@pytest.mark.parametrize("named", ["CUB_200_2011", "."])
def test_archives_in_the_folder_are_unpacked(tmp_path, monkeypatch, named):
  root = _published(tmp_path / "made", [(1, 15), (0, 15)])
  data = tmp_path / "data"
  data.mkdir()
  segmentations = shutil.move(root / "segmentations", tmp_path / "made" / "segmentations")
  for content in (root, pathlib.Path(segmentations)):
    with tarfile.open(data / f"{content.name}.tgz", "w:gz") as tar:
      tar.add(content, content.name)
  made = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in data.iterdir()}
  fakes = tuple(dataclasses.replace(a, sha256=made[a.name]) for a in cub._ARCHIVES)
  monkeypatch.setattr(cub, "_ARCHIVES", fakes)
  for _ in range(2):  # the second time everything is there
    builder = cub_builder(
      data / named,
      annotations=None,
      min_keypoints_train=6,
      min_keypoints_test=7,
      margin=10.0,
      download=True,
    )
    assert [example.name for example in builder.examples()] == ["bird_1", "bird_2"]
