"""The synthetic birds: geometry, cameras, annotations that agree, determinism, difficulty."""

import jax.numpy as jnp
import numpy as np
import pytest

from umr_jax.data.synthetic import (
  IMAGE_SIZE,
  SyntheticBuilder,
  project,
  render_image,
  view_rotation,
)
from umr_jax.data.synthetic_appearance import PART_NAMES
from umr_jax.data.synthetic_bird import KEYPOINT_FLIP, KEYPOINT_NAMES, build_bird, sample_shape
from umr_jax.data.transforms import crop, square_box
from umr_jax.geometry import camera


@pytest.fixture(scope="module")
def drawn():
  return [render_image(seed=0, split="train", index=index) for index in range(12)]


@pytest.mark.parametrize("seed", range(6))
def test_a_bird_is_closed_outward_symmetric_and_of_diagonal_two(seed):
  bird = build_bird(sample_shape(np.random.default_rng(seed)))
  edges = np.concatenate([bird.faces[:, [i, (i + 1) % 3]] for i in range(3)])
  directed = {tuple(edge) for edge in edges.tolist()}
  # Every directed edge once, and its reverse once: closed and consistently wound.
  assert len(directed) == len(edges)
  assert all((b, a) in directed for a, b in directed)
  a, b, c = (bird.vertices[bird.faces[:, i]] for i in range(3))
  for piece in np.unique(bird.piece):
    own = bird.piece == piece
    volume = np.einsum("fc,fc->", a[own], np.cross(b[own], c[own])) / 6.0
    assert volume > 0.0
  mirrored = bird.vertices * [1, -1, 1]
  order = [np.lexsort(np.round(v, 6).T) for v in (bird.vertices, mirrored)]
  np.testing.assert_allclose(bird.vertices[order[0]], mirrored[order[1]], atol=1e-5)
  extent = np.ptp(bird.vertices, axis=0)
  assert np.linalg.norm(extent) == pytest.approx(2.0)
  np.testing.assert_allclose(bird.vertices.min(axis=0), -extent / 2.0, atol=1e-9)
  np.testing.assert_allclose(
    bird.keypoints[list(KEYPOINT_FLIP)], bird.keypoints * [1, -1, 1], atol=1e-9
  )
  assert bird.keypoints[0, 0] > bird.keypoints[-1, 0]  # the beak is in front of the tail


def test_up_is_up_on_the_screen_and_a_positive_elevation_shows_the_back():
  up = np.array([0.0, 0.0, 1.0])
  for azimuth in (0.0, 70.0, 200.0):
    level = view_rotation(azimuth=azimuth, elevation=0.0, roll=0.0).apply(up)
    np.testing.assert_allclose(level, [0.0, -1.0, 0.0], atol=1e-9)
    raised = view_rotation(azimuth=azimuth, elevation=30.0, roll=0.0).apply(up)
    assert raised[2] == pytest.approx(-0.5)  # the back comes nearer
  base = view_rotation(azimuth=0.0, elevation=0.0, roll=0.0).as_quat(scalar_first=True)
  np.testing.assert_allclose(base, [np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0], atol=1e-9)


def test_the_camera_is_that_of_the_geometry_package(drawn):
  image = drawn[0]
  expected = camera.project(
    jnp.asarray(image.vertices[None]), jnp.asarray(image.example.camera[None])
  )[0]
  np.testing.assert_allclose(project(image.vertices, image.example.camera), expected, atol=1e-5)


def test_the_mask_is_where_the_mesh_projects(drawn):
  for image in drawn:
    screen = project(image.vertices, image.example.camera)[:, :2]
    low, high = (screen.min(axis=0) + 1) * 80, (screen.max(axis=0) + 1) * 80
    x0, y0, x1, y1 = image.example.box
    # Beaks and toes are thinner than half a pixel.
    np.testing.assert_allclose([x0, y0, x1, y1], [*low, *high], atol=4.0)
    assert (low > 0).all() and (high < IMAGE_SIZE).all()


def test_parts_and_mask_agree_and_all_parts_occur(drawn):
  seen = np.zeros(len(PART_NAMES) + 1)
  for image in drawn:
    parts, mask = image.example.parts, image.example.mask
    np.testing.assert_allclose(parts.sum(axis=-1), 1.0, atol=1e-6)
    np.testing.assert_allclose(1.0 - parts[..., 0], mask, atol=1e-6)
    seen += parts.sum(axis=(0, 1))
  assert (seen > 100.0).all()


def test_visible_keypoints_lie_on_the_bird_and_hidden_ones_occur(drawn):
  visible = np.stack([image.example.keypoints[:, 2] for image in drawn])
  assert visible.shape == (12, len(KEYPOINT_NAMES))
  assert set(np.unique(visible)) == {0.0, 1.0}
  left, right = KEYPOINT_NAMES.index("left_eye"), KEYPOINT_NAMES.index("right_eye")
  assert (visible[:, left] != visible[:, right]).any()
  for image in drawn:
    mask = np.pad(image.example.mask, 2)
    for name, (x, y, _) in zip(KEYPOINT_NAMES, image.example.keypoints, strict=True):
      if name in ("breast", "back", "crown", "left_eye", "right_eye"):
        assert mask[int(y) : int(y) + 5, int(x) : int(x) + 5].max() > 0.5, name


def test_an_image_depends_on_seed_split_and_index_alone(drawn):
  again = render_image(seed=0, split="train", index=3)
  np.testing.assert_array_equal(again.example.image, drawn[3].example.image)
  for other in (dict(seed=1, split="train"), dict(seed=0, split="test")):
    assert (render_image(index=3, **other).example.image != again.example.image).any()


def test_the_builder_draws_both_splits_in_order():
  builder = SyntheticBuilder(seed=0, train_images=3, test_images=2)
  examples = list(builder.examples())
  contents = builder.contents()
  assert [e.name for e in examples] == [
    "train00000", "train00001", "train00002", "test00000", "test00001"
  ]  # fmt: skip
  assert contents.splits == {"train": [0, 1, 2], "test": [3, 4]}
  assert set(contents.meshes) == {e.shape for e in examples}
  with pytest.raises(ValueError, match="train_images"):
    SyntheticBuilder(seed=0, train_images=0, test_images=2)


def _soft_iou(a, b):
  return np.mean((a * b).sum((1, 2)) / (a + b - a * b).sum((1, 2)))


@pytest.mark.slow
def test_neither_a_constant_mask_nor_a_sphere_explains_the_test_birds():
  size = 96
  crops = []
  for index in range(100):
    example = render_image(seed=0, split="test", index=index).example
    crops.append(crop(example, square_box(example.box, padding=0.05), image_size=size))
  masks = np.stack([item.mask for item in crops])
  hard = masks >= 0.5
  mean = hard.mean(axis=0)
  constant = max(
    _soft_iou(hard.astype(float), (mean >= level)[None]) for level in np.linspace(0.05, 0.95, 19)
  )
  center = (2.0 * np.arange(size) + 1.0 - size) / size
  cameras = np.stack([item.camera for item in crops])
  distance = np.hypot(
    center[None, None, :] - cameras[:, 1, None, None],
    center[None, :, None] - cameras[:, 2, None, None],
  )
  sphere = max(
    _soft_iou(masks, np.clip((r * cameras[:, 0, None, None] - distance) * size / 2 + 0.5, 0, 1))
    for r in np.linspace(0.1, 1.0, 19)
  )
  print(f"constant mask {constant:.3f}, sphere with the true camera {sphere:.3f}")  # noqa: T201
  # What a learned template must beat; easier images would not need one.
  assert constant <= 0.50
  assert sphere <= 0.60
