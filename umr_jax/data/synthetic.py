"""The embedded synthetic category: birds with exact masks, parts, keypoints, cameras and shapes.

Every image depends on (seed, split, index) alone, so that they may be rendered in any order and
on any number of threads, and a test bird is never a training bird.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from umr_jax.data.example import Contents, Example, Json, Meshes, mask_box
from umr_jax.data.synthetic_appearance import (
  PART_NAMES,
  Plumage,
  part_labels,
  render_background,
  sample_plumage,
  surface_albedo,
)
from umr_jax.data.synthetic_bird import (
  KEYPOINT_FLIP,
  KEYPOINT_NAMES,
  BirdMesh,
  build_bird,
  sample_shape,
)
from umr_jax.data.threads import ordered_map
from umr_jax.data.zbuffer import Fragments, zbuffer

# Part of a prepared data set's fingerprint: raise it whenever an image would change.
VERSION = 2
IMAGE_SIZE = 160
_SUPERSAMPLING = 2
# How far, in object units, a keypoint may lie behind the surface that is visible there.
_VISIBLE_TOLERANCE = 0.05
_SPLITS = {"train": 0, "test": 1}


class SyntheticImage(NamedTuple):
  """An image and the mesh that it is rendered from."""

  example: Example
  vertices: np.ndarray  # [V, 3] float32, object space
  faces: np.ndarray  # [F, 3] int32


def view_rotation(*, azimuth: float, elevation: float, roll: float) -> Rotation:
  """The rotation from object to camera space.

  The base turns object z up on the screen (image y points down); azimuth turns the object about
  its own z first.

  Args:
    azimuth: degrees about the object's z.
    elevation: degrees; from a positive one the object's upper side is visible.
    roll: degrees in the image plane.
  """
  upright = Rotation.from_euler("x", 90.0, degrees=True)
  turn = Rotation.from_euler("z", azimuth, degrees=True)
  tilt = Rotation.from_euler("x", elevation, degrees=True)
  return Rotation.from_euler("z", roll, degrees=True) * tilt * upright * turn


def sample_camera(rng: np.random.Generator, vertices: np.ndarray) -> np.ndarray:
  """Samples a camera with the whole object in view: any azimuth, elevation -10..45, roll +-10.

  Args:
    rng: of the angles, the share of the frame that the object fills and its place.
    vertices: [V, 3] the object.

  Returns:
    [7] float64, scale, translation and quaternion (w, x, y, z).
  """
  rotation = view_rotation(
    azimuth=rng.uniform(0.0, 360.0),
    elevation=rng.uniform(-10.0, 45.0),
    roll=rng.uniform(-10.0, 10.0),
  )
  screen = rotation.apply(vertices)[:, :2]
  low, high = screen.min(axis=0), screen.max(axis=0)
  scale = 2.0 * rng.uniform(0.55, 0.78) / (high - low).max()
  # The object's centre may lie anywhere in 0.9 of what the object leaves free.
  room = 0.9 * (1.0 - scale * (high - low) / 2.0)
  center = rng.uniform(-1.0, 1.0, 2) * np.minimum(room, 0.25)
  translation = center - scale * (low + high) / 2.0
  x, y, z, w = rotation.as_quat(canonical=True)
  return np.array([scale, *translation, w, x, y, z])


def project(points: np.ndarray, camera: np.ndarray) -> np.ndarray:
  """NumPy float64 twin of `geometry.camera.project` for one camera of a scale up to 2.

  Beyond that the depth offset there is larger than the 5 of here; `sample_camera` stays below.

  Args:
    points: [N, 3] in object space.
    camera: [7].

  Returns:
    [N, 3] in image space.
  """
  scale, tx, ty, w, x, y, z = np.asarray(camera, np.float64)
  turned = Rotation.from_quat([x, y, z, w]).apply(points)
  return turned * scale + np.array([tx, ty, 5.0])


def render_image(*, seed: int, split: str, index: int) -> SyntheticImage:
  """Renders an image of the synthetic category.

  Args:
    seed: of the data set.
    split: "train" or "test".
    index: of the image in its split.
  """
  rng = np.random.default_rng((seed, _SPLITS[split], index))
  bird = build_bird(sample_shape(rng))
  camera = sample_camera(rng, bird.vertices)
  plumage = sample_plumage(rng)
  palette = (plumage.back, plumage.belly, plumage.head)
  background = render_background(rng, size=IMAGE_SIZE, palette=palette)

  size = IMAGE_SIZE * _SUPERSAMPLING
  fragments = zbuffer(project(bird.vertices, camera), bird.faces, size=size, cull=True)
  color, labels = _shade_fragments(rng, bird, plumage, fragments)
  parts = _coverage(fragments.pixels, labels, size)
  mask = 1.0 - parts[..., 0]
  colors = np.zeros((size * size, 3), np.float32)
  colors[fragments.pixels] = color
  image = _pool(colors.reshape(size, size, 3)) + background * parts[..., :1]
  image = image + rng.normal(0.0, rng.uniform(0.0, 0.025), image.shape)

  box = mask_box(mask)
  if box is None:
    raise RuntimeError(f"synthetic image {split} {index} of seed {seed} has an empty mask")
  name = f"{split}{index:05d}"
  example = Example(
    name=name,
    image=np.round(255.0 * np.clip(image, 0.0, 1.0)).astype(np.uint8),
    mask=mask,
    box=box,
    parts=parts,
    keypoints=_keypoints(bird, camera, fragments.depth, size),
    camera=camera.astype(np.float32),
    shape=name,
  )
  return SyntheticImage(example, bird.vertices.astype(np.float32), bird.faces)


def _shade_fragments(
  rng: np.random.Generator, bird: BirdMesh, plumage: Plumage, fragments: Fragments
) -> tuple[np.ndarray, np.ndarray]:
  """Lit colour and part of every covered pixel, under one sun in the world's frame."""
  stacked = np.column_stack([bird.vertices, bird.normals, bird.along, bird.across])
  corners = bird.faces[fragments.faces]
  values = sum(fragments.weights[:, i, None] * stacked[corners[:, i]] for i in range(3))
  points, normals, along, across = values[:, :3], values[:, 3:6], values[:, 6], values[:, 7]
  normals = normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
  piece = bird.piece[fragments.faces]

  eyes = bird.keypoints[[KEYPOINT_NAMES.index("left_eye"), KEYPOINT_NAMES.index("right_eye")]]
  crown = bird.keypoints[KEYPOINT_NAMES.index("crown")]
  eye_radius = 0.42 * float(np.linalg.norm(crown - eyes.mean(axis=0)))
  albedo = surface_albedo(
    plumage, piece=piece, along=along, across=across, points=points, eyes=eyes,
    eye_radius=eye_radius,
  )  # fmt: skip
  # The bird is upright, so the world's frame is the object's up to the azimuth: a sun from
  # anywhere above, and a sky that is brighter than the ground.
  turn, height = rng.uniform(0.0, 2.0 * np.pi), np.deg2rad(rng.uniform(25.0, 80.0))
  sun = [np.cos(turn) * np.cos(height), np.sin(turn) * np.cos(height), np.sin(height)]
  direct = np.clip(normals @ np.array(sun), 0.0, None)
  ambient = 0.5 + 0.12 * normals[:, 2]
  light = ambient + rng.uniform(0.25, 0.6) * direct
  color = np.clip(albedo * light[:, None] * rng.uniform(0.9, 1.15), 0.0, 1.0)
  return color.astype(np.float32), part_labels(piece, along, across)


def _pool(image: np.ndarray) -> np.ndarray:
  """Averages blocks of supersampled pixels: [n S, n S, C] to [S, S, C]."""
  n = _SUPERSAMPLING
  # Sums of slices: several times faster than a mean over two short axes.
  total = np.zeros((image.shape[0] // n, image.shape[1] // n, image.shape[2]), image.dtype)
  for row in range(n):
    for column in range(n):
      total += image[row::n, column::n]
  return total / np.float32(n * n)


def _coverage(pixels: np.ndarray, labels: np.ndarray, size: int) -> np.ndarray:
  """The share of every stored pixel that each part covers, background first."""
  n, small = _SUPERSAMPLING, size // _SUPERSAMPLING
  channels = len(PART_NAMES) + 1
  row, column = np.divmod(pixels, size)
  flat = ((row // n) * small + column // n) * channels + labels
  counts = np.bincount(flat, minlength=small * small * channels).astype(np.float32)
  parts = counts.reshape(small, small, channels) / np.float32(n * n)
  parts[..., 0] = 1.0 - parts[..., 1:].sum(axis=-1)
  return parts


def _keypoints(bird: BirdMesh, camera: np.ndarray, depth: np.ndarray, size: int) -> np.ndarray:
  """[N, 3]: keypoints in stored pixels, and whether no surface lies in front of them."""
  projected = project(bird.keypoints, camera)
  column, row = np.clip(np.floor((projected[:, :2] + 1.0) * size / 2.0), 0, size - 1).astype(int).T
  surface = depth[row * size + column]
  visible = projected[:, 2] <= surface + _VISIBLE_TOLERANCE * camera[0]
  xy = (projected[:, :2] + 1.0) * IMAGE_SIZE / 2.0
  return np.column_stack([xy, visible]).astype(np.float32)


class SyntheticBuilder:
  """Builds the synthetic data set (`example.Builder`)."""

  name = "birds"

  def __init__(self, *, seed: int, train_images: int, test_images: int):
    """Renders nothing yet.

    Args:
      seed: of the data set.
      train_images: number of images for training.
      test_images: number of images for testing.

    Raises:
      ValueError: for a data set without training images.
    """
    if train_images < 1 or test_images < 0:
      raise ValueError(
        "data.train_images must be at least 1 and data.test_images at least 0, got "
        f"{train_images} and {test_images}"
      )
    self._seed = seed
    self._counts = {"train": train_images, "test": test_images}
    self._meshes: Meshes = {}

  def settings(self) -> dict[str, Json]:
    """Everything that decides what is rendered."""
    return {"source": "synthetic", "version": VERSION, "seed": self._seed, **self._counts}

  def examples(self) -> Iterator[Example]:
    """Renders the training images, then the test images."""

    def render(item: tuple[str, int]) -> SyntheticImage:
      return render_image(seed=self._seed, split=item[0], index=item[1])

    items = [(split, index) for split in _SPLITS for index in range(self._counts[split])]
    for rendered in ordered_map(render, items):
      self._meshes[rendered.example.name] = (rendered.vertices, rendered.faces)
      yield rendered.example

  def contents(self) -> Contents:
    """The splits, the names and every bird's own mesh."""
    train, test = self._counts["train"], self._counts["test"]
    return Contents(
      splits={"train": list(range(train)), "test": list(range(train, train + test))},
      part_names=PART_NAMES,
      keypoint_names=KEYPOINT_NAMES,
      keypoint_flip=KEYPOINT_FLIP,
      meshes=self._meshes,
    )
