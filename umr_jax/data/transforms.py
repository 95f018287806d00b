"""From a stored image to the square crop that the network takes, and its barrier field.

One pixel rule: continuous pixel coordinates put (0.5, 0.5) at the centre of the first pixel, and
pixel i of a crop of S pixels shows the part [i, i + 1] / S of the square.
"""

import dataclasses
import math

import numpy as np
from PIL import Image
from scipy import ndimage

from umr_jax.config.settings import DataConfig
from umr_jax.data.example import Box, Example, frame_square

Square = tuple[float, float, float]  # x0, y0, side, in pixels of the stored image


@dataclasses.dataclass(frozen=True, kw_only=True)
class CropSpec:
  """Which square crops are taken of a data set: their size, and their place about the box."""

  image_size: int  # S, pixels per side
  padding: float  # share of the box's width or height by which every side moves out
  jitter: float = 0.0  # training: the largest share by which every side moves at random
  mirror: bool = False  # training: mirror an image with probability one half

  @classmethod
  def from_config(cls, config: DataConfig) -> "CropSpec":
    """The crops that the settings name."""
    return cls(
      image_size=config.image_size,
      padding=config.padding,
      jitter=config.jitter,
      mirror=config.mirror,
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Crop:
  """A square crop of an example, S pixels a side."""

  name: str
  image: np.ndarray  # [S, S, 3] float32 in [0, 1], white outside the stored image
  mask: np.ndarray  # [S, S] float32 in [0, 1]
  parts: np.ndarray | None  # [S, S, P + 1] float32
  keypoints: np.ndarray | None  # [N, 3] float32: x, y in [-1, 1] of the crop, visible
  camera: np.ndarray | None  # [7] float32, for the crop
  shape: str | None
  square: Square


def square_box(box: Box, *, padding: float, jitter: np.ndarray | None = None) -> Square:
  """The square around a box: each side moved out, then the shorter direction grown evenly.

  Args:
    box: x0, y0, x1, y1 in pixels.
    padding: share of the box's width or height by which every side moves out.
    jitter: [4] further shares by which the sides move out (negative: in), or None.

  Returns:
    x0, y0 and the side, in pixels; not rounded, and never shorter than one pixel.

  Departs: the released code rounds the square to whole pixels.

  Source: Li et al. 2020, supplementary 2.3; the crops of Kanazawa et al. 2018 (CMR).
  """
  x0, y0, x1, y1 = box
  outward = np.full(4, padding) if jitter is None else padding + np.asarray(jitter)
  width, height = x1 - x0, y1 - y0
  x0, x1 = x0 - outward[0] * width, x1 + outward[2] * width
  y0, y1 = y0 - outward[1] * height, y1 + outward[3] * height
  side = max(x1 - x0, y1 - y0, 1.0)
  return float((x0 + x1 - side) / 2.0), float((y0 + y1 - side) / 2.0), float(side)


def crop(
  example: Example,
  square: Square,
  *,
  image_size: int,
  mirror: bool = False,
  keypoint_flip: tuple[int, ...] = (),
) -> Crop:
  """Crops a square of an example and resizes it, with its annotations.

  Downsampling averages (no aliasing), upsampling is bilinear. Outside the stored image the crop is
  white and the mask 0.

  Args:
    example: the stored image.
    square: x0, y0, side in its pixels.
    image_size: S.
    mirror: flip left to right.
    keypoint_flip: for a mirrored crop, the keypoint whose place each keypoint takes.

  Raises:
    ValueError: when a mirrored crop has keypoints and `keypoint_flip` does not fit them.
  """
  image = resample(example.image, square, image_size, fill=255.0) / np.float32(255.0)
  mask = resample(example.mask, square, image_size, fill=0.0)
  parts = None
  if example.parts is not None:
    parts = resample(example.parts, square, image_size, fill=0.0)
    # What lies outside the image is background.
    parts[..., 0] += np.maximum(np.float32(1.0) - parts.sum(axis=-1), np.float32(0.0))
  height, width = example.mask.shape
  keypoints, camera = example.keypoints, example.camera
  if keypoints is not None:
    keypoints = keypoints_to_square(keypoints, square)
  if camera is not None:
    camera = move_camera(camera, source=frame_square(height, width), target=square)
  if mirror:
    image, mask = image[:, ::-1], mask[:, ::-1]
    parts = None if parts is None else parts[:, ::-1]
    camera = None if camera is None else mirror_camera(camera)
    if keypoints is not None:
      if sorted(keypoint_flip) != list(range(keypoints.shape[0])):
        raise ValueError(
          f"cannot mirror {keypoints.shape[0]} keypoints with the flip {keypoint_flip}: "
          "expected a permutation of their indices"
        )
      keypoints = keypoints[list(keypoint_flip)] * np.array([-1.0, 1.0, 1.0], np.float32)
  return Crop(
    name=example.name,
    image=np.ascontiguousarray(image),
    mask=np.ascontiguousarray(mask),
    parts=None if parts is None else np.ascontiguousarray(parts),
    keypoints=keypoints,
    camera=camera,
    shape=example.shape,
    square=square,
  )


def crop_about_box(
  example: Example, spec: CropSpec, *, keypoint_flip: tuple[int, ...] = ()
) -> Crop:
  """The crop about an example's box, neither jittered nor mirrored.

  Args:
    example: the stored image.
    spec: size and padding.
    keypoint_flip: of the keypoints; see `crop`.
  """
  square = square_box(example.box, padding=spec.padding)
  return crop(example, square, image_size=spec.image_size, keypoint_flip=keypoint_flip)


def resample(values: np.ndarray, square: Square, size: int, *, fill: float) -> np.ndarray:
  """Resamples a square of an array: downsampling averages, upsampling is bilinear.

  Args:
    values: [H, W] or [H, W, C].
    square: x0, y0, side in pixels of the array; it may reach beyond it.
    size: pixels per side of the result.
    fill: the value outside the array.

  Returns:
    [size, size] or [size, size, C] float32.
  """
  x0, y0, side = square
  # What the filter can reach beyond the square; only that much is copied and padded.
  margin = math.ceil(side / size) + 2
  left, top = math.floor(x0) - margin, math.floor(y0) - margin
  right, bottom = math.ceil(x0 + side) + margin, math.ceil(y0 + side) + margin
  height, width = values.shape[:2]
  canvas = np.full((bottom - top, right - left, *values.shape[2:]), fill, values.dtype)
  rows = slice(max(top, 0), max(min(bottom, height), 0))
  columns = slice(max(left, 0), max(min(right, width), 0))
  inside = values[rows, columns]
  if inside.size > 0:
    row, column = rows.start - top, columns.start - left
    canvas[row : row + inside.shape[0], column : column + inside.shape[1]] = inside
  region = (x0 - left, y0 - top, x0 - left + side, y0 - top + side)

  def resize(plane: np.ndarray) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(plane))
    resized = image.resize((size, size), Image.Resampling.BILINEAR, box=region)
    return np.asarray(resized, np.float32)

  if values.dtype == np.uint8 or values.ndim == 2:
    return resize(canvas)
  return np.stack([resize(canvas[..., c]) for c in range(canvas.shape[-1])], axis=-1)


def keypoints_to_square(keypoints: np.ndarray, square: Square) -> np.ndarray:
  """Keypoints from pixels to [-1, 1] of a square.

  Args:
    keypoints: [N, 3] x, y, visible; the last column is kept.
    square: x0, y0, side in pixels.

  Returns:
    [N, 3] float32.
  """
  x0, y0, side = square
  xy = 2.0 * (keypoints[:, :2] - np.array([x0, y0])) / side - 1.0
  return np.column_stack([xy, keypoints[:, 2]]).astype(np.float32)


def move_camera(camera: np.ndarray, *, source: Square, target: Square) -> np.ndarray:
  """The camera for one square of an image as the camera for another square of it.

  Args:
    camera: [7] for `source`.
    source: x0, y0, side in pixels.
    target: the same of the other square.

  Returns:
    [7] float32.
  """
  x0, y0, side = source
  pixels = np.array([x0, y0]) + (np.asarray(camera[1:3], np.float64) + 1.0) * side / 2.0
  moved = 2.0 * (pixels - np.array(target[:2])) / target[2] - 1.0
  scale = camera[0] * side / target[2]
  return np.concatenate([[scale], moved, camera[3:]]).astype(np.float32)


def mirror_camera(camera: np.ndarray) -> np.ndarray:
  """The camera that renders an object, symmetric about y = 0, as its image's mirror image.

  The rotation M_x R M_y in quaternions: M_x is the image's flip, M_y the object's mirror plane.

  Departs: the released code's (w, x, -y, -z) is M_x R M_x, which holds for an object whose mirror
    plane is x = 0.
  """
  scale, tx, ty, w, x, y, z = camera
  return np.array([scale, -tx, ty, z, -y, -x, w], np.float32)


def barrier(mask: np.ndarray) -> np.ndarray:
  """The barrier field, which is low where texture samples belong: inside the silhouette.

  Args:
    mask: [S, S], binarised at 0.5.

  Returns:
    [S, S] float32: sigmoid(50 (d_out - d_in) / S) of the distances, in pixels, to the silhouette
    from outside and to the background from inside. It is 0 deep inside and 1 far outside;
    everywhere 1 for an empty mask, 0 for a full one.

  Departs: the released code takes distances on the soft mask; here the mask is binarised.

  Source: Kanazawa et al. 2018 (CMR), texture distance transform; Li et al. 2020, section 3.3.
  """
  inside = mask >= 0.5
  if inside.all() or not inside.any():
    return np.full(mask.shape, 0.0 if inside.all() else 1.0, np.float32)
  outer = ndimage.distance_transform_edt(~inside)
  inner = ndimage.distance_transform_edt(inside)
  steepness = 50.0 / mask.shape[0]
  return (1.0 / (1.0 + np.exp(-steepness * (outer - inner)))).astype(np.float32)
