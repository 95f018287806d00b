"""One image of a data set as it is stored, and what a builder of a data set must offer."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]
Box = tuple[float, float, float, float]  # x0, y0, x1, y1, in pixels to the outer pixel edges
Meshes = dict[str, tuple[np.ndarray, np.ndarray]]  # vertices [V, 3] float32, faces [F, 3] int32


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Example:
  """One image with everything that is known of it.

  Pixel coordinates are continuous: x right, y down, (0.5, 0.5) the centre of the first pixel. The
  camera lives in the stored image's frame (`frame_square`), [-1, 1] to the outer pixel edges of a
  square image.
  """

  name: str
  image: np.ndarray  # [H, W, 3] uint8
  mask: np.ndarray  # [H, W] float32 in [0, 1]; ones where there is none
  box: Box  # of the mask
  parts: np.ndarray | None = None  # [H, W, P + 1] float32, background first
  keypoints: np.ndarray | None = None  # [N, 3] float32: x, y, visible
  camera: np.ndarray | None = None  # [7] float32
  has_mask: bool = True  # False: nobody said where in the image the object is
  shape: str | None = None  # key into `Dataset.meshes`


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Contents:
  """What a data set holds besides its stream of examples."""

  splits: dict[str, list[int]]  # "train" and "test": positions in the stream
  part_names: tuple[str, ...] = ()
  keypoint_names: tuple[str, ...] = ()
  keypoint_flip: tuple[int, ...] = ()
  meshes: Meshes = dataclasses.field(default_factory=dict)  # in object space, by `Example.shape`
  skipped: list[tuple[str, str]] = dataclasses.field(default_factory=list)  # name, reason


class Source(Protocol):
  """Examples by their index."""

  def __getitem__(self, index: int) -> Example: ...


class Builder(Protocol):
  """Makes a data set. `contents` may be read once the examples have been."""

  name: str

  def settings(self) -> Mapping[str, Json]:
    """Everything that decides what is built, as JSON values: the fingerprint's input."""
    ...

  def examples(self) -> Iterator[Example]:
    """The stream of examples, always in the same order."""
    ...

  def contents(self) -> Contents:
    """The rest of the data set."""
    ...


def mask_box(mask: np.ndarray) -> Box | None:
  """The box of the pixels with mask >= 0.5, or None where there are none."""
  inside = mask >= 0.5
  rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
  if rows.size == 0:
    return None
  return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def box_iou(first: Box, second: Box) -> float:
  """Intersection over union of two boxes.

  Args:
    first: a box.
    second: another, in the same unit.
  """
  a, b = np.array(first), np.array(second)
  shared = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0.0))
  return float(shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared))


def frame_square(height: int, width: int) -> tuple[float, float, float]:
  """The square (x0, y0, side), in pixels, that [-1, 1]^2 means for an image of any shape.

  A weak perspective camera has one scale, so the frame must be square: it is centred on the image
  and as large as the image's longer side. For a square image it is the image itself.

  Args:
    height: of the image, in pixels.
    width: of the image, in pixels.
  """
  side = float(max(height, width))
  return (width - side) / 2.0, (height - side) / 2.0, side
