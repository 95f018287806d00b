"""Images for display: one resize, one conversion to 8 bits, one labelled grid, one PNG writer.

An image is float in [0, 1] or uint8; every function takes both.
"""

import io
import os
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from umr_jax.data.image_files import to_bytes
from umr_jax.files import write_bytes

_GAP = 2  # pixels between the cells of a grid


def to_float(image: np.ndarray) -> np.ndarray:
  """An image as float32, uint8 divided by 255."""
  image = np.asarray(image)
  return image / np.float32(255.0) if image.dtype == np.uint8 else image.astype(np.float32)


def to_uint8(image: np.ndarray) -> np.ndarray:
  """An image as uint8, floats clipped to [0, 1] and rounded."""
  image = np.asarray(image)
  return image if image.dtype == np.uint8 else to_bytes(image)


def resized(image: np.ndarray, size: int) -> np.ndarray:
  """A square image at another size, bilinear, antialiased when it shrinks.

  Args:
    image: [S, S, C].
    size: pixels of a side.

  Returns:
    float32 [size, size, C].
  """
  image = to_float(image)
  if image.shape[:2] == (size, size):
    return image
  shape = (size, size, image.shape[-1])
  return np.asarray(jax.image.resize(jnp.asarray(image), shape, "linear"))


def labelled_grid(
  rows: Sequence[Sequence[np.ndarray]], names: Sequence[str], *, cell: int, last_row: str = ""
) -> np.ndarray:
  """Images in rows under the names of their columns.

  Args:
    rows: square images [S, S, 3] of any sizes; rows may differ in length.
    names: of the columns.
    cell: pixels of a side of each image.
    last_row: a line of text above the last row, or nothing.

  Returns:
    uint8 [H, W, 3] on white.
  """
  text_size = max(10, cell // 9)
  font = ImageFont.load_default(size=text_size)
  line = text_size + 6
  width = len(names) * (cell + _GAP) + _GAP
  height = line + len(rows) * (cell + _GAP) + _GAP + (line if last_row else 0)
  canvas = np.full((height, width, 3), 255, np.uint8)
  text = [((_GAP + k * (cell + _GAP) + 2, 2), name) for k, name in enumerate(names)]
  top = line
  for index, row in enumerate(rows):
    if last_row and index == len(rows) - 1:
      text.append(((_GAP + 2, top + 2), last_row))
      top += line
    for column, image in enumerate(row):
      left = _GAP + column * (cell + _GAP)
      canvas[top : top + cell, left : left + cell] = to_uint8(resized(image, cell))
    top += cell + _GAP
  page = Image.fromarray(canvas)
  pen = ImageDraw.Draw(page)
  for position, words in text:
    pen.text(position, words, fill=(40, 40, 40), font=font)
  return np.asarray(page)


def save_png(path: str | os.PathLike[str], image: np.ndarray) -> None:
  """Writes an image as a PNG file, atomically.

  Args:
    path: of the file; its folder is made if missing.
    image: [H, W], [H, W, 3] or [H, W, 4].

  Raises:
    ValueError: for an image of another type or shape, or with NaN.
  """
  pixels = np.asarray(image)
  if pixels.dtype.kind == "f":
    if not np.isfinite(pixels).all():
      raise ValueError(f"the image for {os.fspath(path)} has NaN or infinite values")
    pixels = to_uint8(pixels)
  if (
    pixels.dtype != np.uint8
    or pixels.ndim not in (2, 3)
    or pixels.shape[2:] not in ((), (3,), (4,))
  ):
    raise ValueError(f"found an image of {pixels.dtype} {pixels.shape}; expected uint8 [H, W, 3]")
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, format="PNG")
  write_bytes(pathlib.Path(path), buffer.getvalue())
