"""PASCAL3D+ in its published files, as a small fake of the same formats."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import io as scipy_io

from umr_jax.data.example import frame_square
from umr_jax.data.pascal3d import fit_camera, pascal3d_builder
from umr_jax.data.pascal3d_files import VOC
from umr_jax.data.transforms import keypoints_to_square
from umr_jax.geometry import camera

HEIGHT, WIDTH = 40, 60
# The object of every image: rows 8 to 27, columns 15 to 34; pixels count from 1 in the files.
BOX = (15.0, 8.0, 35.0, 28.0)
NAMES = ("left_front_wheel", "left_back_wheel", "right_front_wheel", "right_back_wheel", "roof")
# In the release's frame: left, back, up. A box that is longer than wide, with a wedge for a front.
CAD = np.array(
  [[x, y, z] for x in (-0.2, 0.2) for y in (-0.5, 0.5) for z in (-0.15, 0.15)] + [[0.0, -0.7, 0.0]]
)
FACES = np.array([[1, 2, 3], [2, 4, 3], [5, 6, 9]])
VIEW = {
  "azimuth_coarse": 90.0, "elevation_coarse": 10.0, "azimuth": 60.0, "elevation": 15.0,
  "distance": 8.0, "focal": 1.0, "px": 25.5, "py": 18.5, "theta": 4.0, "viewport": 200.0,
}  # fmt: skip


def _anchors(visible=5):
  """Anchor k lies at (16 + k, 10 + 2 k); those that are not visible have another status."""
  return {
    name: {
      "location": np.array([[16.0 + k, 10.0 + 2 * k]]) if k < visible else [],
      "status": status,
    }
    for k, name in enumerate(NAMES)
    for status in [1.0 if k < visible else 2.0]
  }


def _object(**changes):
  entry = {
    "class": "car",
    "bbox": np.array([16.0, 9.0, 35.0, 28.0]),
    "anchors": _anchors(),
    "viewpoint": VIEW,
    "cad_index": 2.0,
    "truncated": 0.0,
    "occluded": 0.0,
    "difficult": 0.0,
  }
  return entry | changes


def _structs(entries):
  array = np.empty((1, len(entries)), [(field, object) for field in entries[0]])
  for index, entry in enumerate(entries):
    array[0, index] = tuple(entry.values())
  return array


def add(root, name, *objects, source="imagenet", mask=True):
  folder = f"car_{source}"
  for kind in ("Annotations", "Images", "Masks"):
    (root / kind / folder).mkdir(parents=True, exist_ok=True)
  record = {"filename": f"{name}.JPEG", "objects": _structs(objects or [_object()])}
  scipy_io.savemat(root / "Annotations" / folder / f"{name}.mat", {"record": record})
  suffix = {"imagenet": ".JPEG", "pascal": ".jpg"}[source]
  image = Image.fromarray(np.full((HEIGHT, WIDTH, 3), [40, 160, 60], np.uint8))
  image.save(root / "Images" / folder / f"{name}{suffix}", format="JPEG")
  if mask:
    make_mask().save(root / "Masks" / folder / f"{name}.png")


def make_mask(box=BOX):
  mask = np.zeros((HEIGHT, WIDTH), np.uint8)
  x0, y0, x1, y1 = (int(value) for value in box)
  mask[y0:y1, x0:x1] = 255
  return Image.fromarray(mask)


@pytest.fixture
def root(tmp_path):
  return make_release(tmp_path)


def make_release(root):
  """The release with one image of ImageNet and none of PASCAL."""
  (root / "CAD").mkdir(parents=True)
  models = []
  for scale in (1.0, 1.5, 2.0):
    anchors = {name: scale * np.full((1, 3), 0.1) for name in NAMES}
    models.append({"vertices": scale * CAD, "faces": FACES, "pnames": np.array(NAMES, object)})
    models[-1] |= anchors | ({"roof": []} if scale == 1.0 else {})
  scipy_io.savemat(root / "CAD" / "car.mat", {"car": _structs(models)})
  lists = root / VOC / "ImageSets" / "Main"
  lists.mkdir(parents=True)
  (lists / "car_train.txt").write_text("2008_000001 -1\n2008_000002  1\n")
  (lists / "car_val.txt").write_text("2008_000003  1\n2008_000004  0\n")
  for kind in ("Annotations", "Images"):
    (root / kind / "car_pascal").mkdir(parents=True)
  add(root, "n02814533_1")
  return root


def _build(root, *, margin=10.0):
  builder = pascal3d_builder(root, category="car", margin=margin)
  return {example.name: example for example in builder.examples()}, builder.contents()


def test_an_image_of_imagenet_is_read_with_all_that_belongs_to_it(root):
  examples, contents = _build(root)
  assert list(examples) == ["n02814533_1_1"] and contents.skipped == []
  assert contents.splits == {"train": [0], "test": []}
  assert contents.keypoint_names == NAMES and contents.keypoint_flip == (2, 3, 0, 1, 4)
  example = examples["n02814533_1_1"]
  assert example.image.shape == (HEIGHT, WIDTH, 3)
  assert example.box == BOX and example.mask.sum() == 400.0
  # Pixel 1 has its centre at 0.5.
  expected = [[15.5 + k, 9.5 + 2 * k, 1.0] for k in range(5)]
  np.testing.assert_array_equal(example.keypoints, np.array(expected, np.float32))
  assert example.shape == "car02" and set(contents.meshes) == {"car02"}
  vertices, faces = contents.meshes["car02"]
  # Object space is front, left, up.
  expected = 1.5 * np.stack([-CAD[:, 1], CAD[:, 0], CAD[:, 2]], axis=-1)
  np.testing.assert_allclose(vertices, expected, rtol=1e-6)
  np.testing.assert_array_equal(faces, FACES - 1)
  assert vertices.dtype == np.float32 and faces.dtype == np.int32


def _released_projection(points, view):
  """The release's perspective projection of points (left, back, up), pixels counted from 1."""
  a, e, theta = (np.deg2rad(view[key]) for key in ("azimuth", "elevation", "theta"))
  centre = view["distance"] * np.array([np.cos(e) * np.sin(a), -np.cos(e) * np.cos(a), np.sin(e)])
  a, e = -a, -(np.pi / 2 - e)
  about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
  about_x = np.array([[1, 0, 0], [0, np.cos(e), -np.sin(e)], [0, np.sin(e), np.cos(e)]])
  seen = (points - centre) @ (about_x @ about_z).T
  flat = view["focal"] * view["viewport"] * seen[:, :2] / -seen[:, 2:]
  in_plane = np.array([[np.cos(theta), -np.sin(theta)], [np.sin(theta), np.cos(theta)]])
  return flat @ in_plane.T * [1.0, -1.0] + [view["px"], view["py"]], -seen[:, 2]


@pytest.mark.parametrize("azimuth", [0.0, 37.0, 90.0, 215.0, 300.0])
@pytest.mark.parametrize("elevation", [-20.0, 40.0])
@pytest.mark.parametrize("theta", [0.0, 25.0])
def test_the_fitted_camera_projects_as_the_released_one(azimuth, elevation, theta):
  view = VIEW | {"azimuth": azimuth, "elevation": elevation, "theta": theta}
  vertices = np.stack([-CAD[:, 1], CAD[:, 0], CAD[:, 2]], axis=-1)
  errors = []
  for zoom in (1.0, 100.0):
    distant = view | {"distance": 8.0 * zoom, "viewport": 200.0 * zoom}
    fit = fit_camera(distant, vertices)
    assert fit is not None
    rotation, scale, translation = fit
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    points = vertices @ rotation.T
    pixels, depth = _released_projection(CAD, distant)
    np.testing.assert_allclose(points[:, 2] + distant["distance"], depth, rtol=1e-9)
    errors.append(np.abs(scale * points[:, :2] + translation - (pixels - 0.5)).max())
  # 35 pixels long: the perspective of 8 units away is a few pixels, that of 800 none.
  assert errors[0] < 2.5 and errors[1] < 0.02


@pytest.mark.parametrize("margin", [0.25, 10.0])
def test_the_stored_camera_puts_the_model_where_the_released_one_does(root, margin):
  view = VIEW | {"distance": 800.0, "viewport": 20000.0}
  add(root, "n02814533_1", _object(viewpoint=view))
  examples, contents = _build(root, margin=margin)
  example = examples["n02814533_1_1"]
  vertices = contents.meshes[example.shape][0]
  screen = np.asarray(camera.project(jnp.asarray(vertices), jnp.asarray(example.camera)))
  # The keypoints say how far the stored image is shifted.
  shift = example.keypoints[0, :2] - [15.5, 9.5]
  pixels = _released_projection(1.5 * CAD, view)[0] - 0.5 + shift
  expected = keypoints_to_square(np.column_stack([pixels, pixels[:, 0]]), _frame(example))
  np.testing.assert_allclose(screen[:, :2], expected[:, :2], atol=2e-3)


def _frame(example):
  return frame_square(*example.mask.shape)


def test_azimuth_0_looks_at_the_front_and_90_at_the_left_side():
  vertices = np.stack([-CAD[:, 1], CAD[:, 0], CAD[:, 2]], axis=-1)
  for azimuth, towards_viewer in ((0.0, [1.0, 0.0, 0.0]), (90.0, [0.0, 1.0, 0.0])):
    view = VIEW | {"azimuth": azimuth, "elevation": 0.0, "theta": 0.0}
    rotation = fit_camera(view, vertices)[0]
    np.testing.assert_allclose(rotation @ towards_viewer, [0.0, 0.0, -1.0], atol=1e-12)
    np.testing.assert_allclose(rotation @ [0.0, 0.0, 1.0], [0.0, -1.0, 0.0], atol=1e-12)


def test_objects_without_a_full_viewpoint_have_no_camera(root):
  coarse = VIEW | {"distance": 0.0}
  add(root, "n1", _object(viewpoint=coarse))
  add(root, "n2", _object(viewpoint={"azimuth_coarse": 90.0, "elevation_coarse": 0.0}))
  add(root, "n3", _object(viewpoint=[]))
  add(root, "n4", _object(viewpoint=VIEW | {"distance": 0.5}))  # inside the model
  examples, contents = _build(root)
  assert contents.skipped == []
  without = [name for name, example in examples.items() if example.camera is None]
  assert without == ["n1_1", "n2_1", "n3_1", "n4_1"]
  assert all(example.shape == "car02" for example in examples.values())


def test_pascals_lists_split_and_what_they_do_not_name_is_left_out(root):
  for number in range(1, 6):
    add(root, f"2008_00000{number}", source="pascal")
  examples, contents = _build(root)
  names = list(examples)
  train = ["n02814533_1_1", "2008_000001_1", "2008_000002_1"]
  assert [names[i] for i in contents.splits["train"]] == train
  assert [names[i] for i in contents.splits["test"]] == ["2008_000003_1", "2008_000004_1"]
  assert contents.skipped == [("2008_000005_1", "its image is in neither of PASCAL's lists")]


def test_objects_of_no_use_are_left_out_with_their_reasons(root):
  add(
    root,
    "n1",
    _object(difficult=1.0),
    _object(truncated=1.0, occluded=1.0),
    _object(anchors=_anchors(visible=3)),
    _object(anchors=[]),
    _object(cad_index=4.0),
    _object(bbox=[]),
    _object(**{"class": "bus"}),  # of another category: not even listed
    _object(anchors=_anchors(visible=4)),
  )
  (root / "Annotations" / "car_imagenet" / "n2.mat").write_bytes(b"rubbish")
  examples, contents = _build(root)
  assert list(examples) == ["n02814533_1_1", "n1_8"]
  np.testing.assert_array_equal(examples["n1_8"].keypoints[4], 0.0)
  reasons = dict(contents.skipped)
  expected = {
    "n1_1": "is difficult",
    "n1_2": "is truncated and occluded",
    "n1_3": "3 visible keypoints, expected at least 4",
    "n1_4": "0 visible keypoints",
    "n1_5": r"cad_index is \[4.0\], expected one from 1 to 3",
    "n1_6": r"the box is \[\]",
    "n2": r"n2\.mat cannot be read",
  }
  assert set(reasons) == set(expected)
  for name, reason in expected.items():
    assert re.search(reason, reasons[name]), reasons[name]


def test_the_models_that_are_used_are_kept_by_their_numbers(root):
  add(root, "n1", _object(cad_index=3.0), _object(cad_index=1.0, difficult=1.0))
  examples, contents = _build(root)
  assert set(contents.meshes) == {"car02", "car03"}
  assert examples["n1_1"].shape == "car03"


def test_every_object_of_an_image_has_its_own_mask(root):
  second = (36.0, 10.0, 56.0, 30.0)
  add(root, "n1", _object(), _object(bbox=np.array([37.0, 11.0, 56.0, 30.0])), mask=False)
  folder = root / "Masks" / "car_imagenet"
  make_mask().save(folder / "n1_1.png")
  make_mask(second).save(folder / "n1_2.png")
  make_mask((0.0, 0.0, 60.0, 40.0)).save(folder / "n1.png")  # of both: comes last
  examples, _ = _build(root)
  assert examples["n1_1"].box == BOX and examples["n1_2"].box == second


def test_masks_that_are_missing_or_of_something_else_are_reasons(root):
  for name in ("missing", "empty", "other", "large"):
    add(root, name, mask=False)
  folder = root / "Masks" / "car_imagenet"
  Image.new("L", (WIDTH, HEIGHT)).save(folder / "empty.png")
  make_mask((0.0, 0.0, 10.0, 10.0)).save(folder / "other.png")
  make_mask((15.0, 8.0, 41.0, 28.0)).save(folder / "large.png")
  examples, contents = _build(root)
  assert list(examples) == ["n02814533_1_1"]
  reasons = dict(contents.skipped)
  assert "Masks/car_imagenet/missing_1.png" in reasons["missing_1"]
  assert "mask is empty" in reasons["empty_1"]
  assert "overlap by 0.00, expected 0.8" in reasons["other_1"]
  assert "overlap by 0.77, expected 0.8" in reasons["large_1"]


def _save_labels(root, name, labels):
  folder = root / VOC / "SegmentationObject"
  folder.mkdir(exist_ok=True)
  image = Image.fromarray(labels)
  image.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
  image.save(folder / f"{name}.png")


def test_segmentations_of_voc_come_first_and_share_the_undecided_line(root):
  objects = [_object(), _object(bbox=np.array([36.0, 11.0, 55.0, 30.0]))]
  add(root, "2008_000003", *objects, source="pascal", mask=False)
  make_mask((0.0, 0.0, 60.0, 40.0)).save(root / "Masks" / "car_pascal" / "2008_000003.png")
  labels = np.zeros((HEIGHT, WIDTH), np.uint8)
  # Lines of four pixels around both objects, two of them the object's.
  labels[6:30, 13:37] = 255
  labels[8:32, 33:57] = 255
  labels[10:26, 17:33] = 1
  labels[12:28, 37:53] = 2
  _save_labels(root, "2008_000003", labels)
  examples, contents = _build(root)
  assert contents.skipped == []
  assert examples["2008_000003_1"].box == BOX
  assert examples["2008_000003_2"].box == (35.0, 10.0, 55.0, 30.0)
  first, second = (examples[f"2008_000003_{k}"].mask for k in (1, 2))
  assert set(np.unique(first)) == {0.0, 1.0} and (first * second).max() == 0.0


def test_segmentations_that_do_not_fit_are_reasons(root):
  for number in (1, 2, 3, 4):
    add(root, f"2008_00000{number}", source="pascal")
  labels = np.zeros((HEIGHT, WIDTH), np.uint8)
  labels[30:40, 40:60] = 1
  _save_labels(root, "2008_000001", labels)
  _save_labels(root, "2008_000002", np.full_like(labels, 255))
  (root / VOC / "SegmentationObject" / "2008_000003.png").write_bytes(b"rubbish")
  examples, contents = _build(root)
  assert list(examples) == ["n02814533_1_1", "2008_000004_1"]
  reasons = dict(contents.skipped)
  assert "overlap by 0.00, expected 0.5" in reasons["2008_000001_1"]
  assert "is not a map of labels" in reasons["2008_000002_1"]
  assert "2008_000003.png cannot be read" in reasons["2008_000003_1"]


def test_missing_files_say_what_to_extract(root):
  page = r"https://cvgl\.stanford\.edu/projects/pascal3d\.html"
  (root / "CAD" / "car.mat").unlink()
  with pytest.raises(FileNotFoundError, match=rf"no CAD/car\.mat\. .*release1\.1\.zip from {page}"):
    _build(root)
  with pytest.raises(FileNotFoundError, match="no Annotations/car_imagenet, no Annotations/car_p"):
    _build(root / "nowhere")
  with pytest.raises(ValueError, match="no category 'cat', only aeroplane, bicycle"):
    pascal3d_builder(root, category="cat", margin=0.25)


def test_malformed_lists_and_models_are_named(root):
  path = root / VOC / "ImageSets" / "Main" / "car_val.txt"
  path.write_text("2008_000003  1\n2008_000004\n")
  with pytest.raises(ValueError, match=r"car_val\.txt, line 2: expected 2 columns"):
    _build(root)
  for model, message in (
    ({"vertices": CAD, "faces": FACES + 7}, r"model 2 has no finite \[V, 3\] vertices and faces"),
    ({"vertices": CAD * np.nan, "faces": FACES}, r"model 2 has no finite \[V, 3\] vertices"),
    ({"vertices": CAD[:, :2], "faces": FACES}, r"model 2 has no finite \[V, 3\] vertices"),
    ({"vertices": CAD, "faces": []}, r"model 2 has no finite \[V, 3\] vertices and faces"),
    ({"vertices": CAD, "faces": "none"}, "model 2 has no vertices and faces"),
  ):
    good = {"vertices": CAD, "faces": FACES}
    scipy_io.savemat(root / "CAD" / "car.mat", {"car": _structs([good, model])})
    with pytest.raises(ValueError, match=message):
      _build(root)
  scipy_io.savemat(root / "CAD" / "car.mat", {"bus": _structs([good])})
  with pytest.raises(ValueError, match="no structs named 'car'"):
    _build(root)


def test_the_only_model_of_a_file_is_read(root):
  model = {"vertices": CAD, "faces": FACES, **{name: np.zeros((1, 3)) for name in NAMES}}
  scipy_io.savemat(root / "CAD" / "car.mat", {"car": _structs([model])})
  add(root, "n02814533_1", _object(cad_index=1.0))
  examples, contents = _build(root)
  assert examples["n02814533_1_1"].shape == "car01" and set(contents.meshes) == {"car01"}


def test_the_settings_follow_the_files(root):
  def settings():
    return pascal3d_builder(root, category="car", margin=0.25).settings()

  first = settings()
  assert settings() == first
  make_mask((0.0, 0.0, 60.0, 40.0)).save(root / "Masks" / "car_imagenet" / "n02814533_1_1.png")
  assert settings() != first
