"""Conversion of a user's input, arrays or files of many kinds, to an `Example`.

Every input is validated here, once; an error names what was found, what was expected and
what to do about it.
"""

import os
import pathlib

import numpy as np
from numpy.typing import ArrayLike

from umr_jax.data.example import Example, mask_box
from umr_jax.data.image_files import read_image, read_mask, to_bytes

Path = str | os.PathLike[str]
Image = ArrayLike | Path  # an array, or a file


def as_example(
  image: Image,
  *,
  mask: Image | None = None,
  box: ArrayLike | None = None,
  name: str = "the image",
) -> Example:
  """Checks one image and determines where the object is in it.

  The mask only locates the object: the network reads the image as it is.

  Args:
    image: [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]: 8 or 16 bit integers, or floats in [0, 1]. The
      fourth channel is the mask where none is given and some of the image is transparent; what it
      hides is white. Or the path of a photograph, which is read upright as its camera recorded it.
    mask: [H, W], booleans, floats in [0, 1], integers of 0 and 1, or 8 or 16 bit integers up to
      their type's largest. Or a file's path.
    box: (x0, y0, x1, y1) in pixels, of the object; by default the mask's box, or else everything.
    name: of this image in error messages; a file has its own.

  Returns:
    The image as bytes. Without a mask `has_mask` is False.

  Raises:
    ValueError: for anything else: a wrong shape or type, NaN, an empty mask, a box without area or
      beside the image, or a file that is no image or is damaged.
  """
  if isinstance(mask, (str, os.PathLike)):
    mask = read_mask(pathlib.Path(mask))
  if isinstance(image, (str, os.PathLike)):
    name = pathlib.Path(image).name
    image, alpha = read_image(pathlib.Path(image))
    mask = alpha if mask is None else mask
  pixels = _array(image, name)
  if pixels.ndim == 2:
    pixels = pixels[..., None]
  if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3, 4) or not pixels.size:
    raise ValueError(
      f"{name} has shape {np.shape(image)}; it must be one image, [H, W], [H, W, 3] or [H, W, 4]"
    )
  size, color = pixels.shape[:2], pixels[..., :3]
  if pixels.shape[-1] == 4:
    alpha = _unit(pixels[..., 3:], name)
    color = _unit(color, name) * alpha + (np.float32(1.0) - alpha)  # over white, as in training
    # As for files (`read_image`): many programs write an alpha channel that hides nothing.
    if mask is None and (alpha < 1.0).any():
      mask = alpha[..., 0]
  coverage = np.ones(size, np.float32) if mask is None else _mask(mask, size, name)
  found = mask_box(coverage) if box is None else _box(box, size, name)
  if found is None:
    raise ValueError(
      f"the mask of {name} is empty: no value reaches half of full; give another one, or none"
    )
  if color.dtype != np.uint8:
    color = to_bytes(_unit(color, name))
  color = np.ascontiguousarray(np.broadcast_to(color, (*size, 3)))
  return Example(name=name, image=color, mask=coverage, box=found, has_mask=mask is not None)


def _array(value: ArrayLike, name: str) -> np.ndarray:
  try:
    array = np.asarray(value)
  except ValueError as error:
    raise ValueError(f"{name} is not an array of numbers: {error}") from error
  if array.dtype.kind not in "buif":
    raise ValueError(
      f"{name} is of {array.dtype}; it must hold numbers: uint8, or floats in [0, 1]"
    )
  return array


def _unit(array: np.ndarray, name: str) -> np.ndarray:
  """Values as float32 in [0, 1], whatever their type's range."""
  if array.dtype == np.bool_:
    return array.astype(np.float32)
  if array.dtype in (np.uint8, np.uint16):
    return array.astype(np.float32) / np.float32(np.iinfo(array.dtype).max)
  if array.dtype.kind in "ui":
    raise ValueError(f"{name} is of {array.dtype}; expected uint8, uint16, or floats in [0, 1]")
  if not np.isfinite(array).all():
    count = int((~np.isfinite(array)).sum())
    raise ValueError(f"{name} has {count} values that are NaN or infinite")
  # Resampled images overshoot by a little; 8-bit values in floats do so by a lot.
  if array.size and (array.min() < -0.01 or array.max() > 1.01):
    raise ValueError(
      f"{name} has floats from {array.min():g} to {array.max():g}; expected [0, 1]: divide by the "
      "largest possible value, or pass uint8"
    )
  return np.clip(array, 0.0, 1.0).astype(np.float32)


def _mask(mask: ArrayLike, size: tuple[int, ...], name: str) -> np.ndarray:
  array = _array(mask, f"the mask of {name}")
  if array.ndim == 3 and array.shape[-1] == 1:
    array = array[..., 0]
  if array.shape != size:
    raise ValueError(f"the mask of {name} has shape {array.shape}; the image has {tuple(size)}")
  if array.dtype.kind in "ui" and array.min() >= 0 and array.max() <= 1:
    array = array.astype(np.bool_)
  return _unit(array, f"the mask of {name}")


def _box(box: ArrayLike, size: tuple[int, ...], name: str) -> tuple[float, float, float, float]:
  values = _array(box, f"the box of {name}").astype(np.float64)
  x0, y0, x1, y1 = values.tolist() if values.shape == (4,) else [np.nan] * 4
  if not (np.isfinite(values).all() and x0 < x1 and y0 < y1):
    raise ValueError(
      f"the box of {name} is {box!r}; expected x0 < x1 and y0 < y1, four finite pixels"
    )
  height, width = size
  if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
    raise ValueError(f"the box of {name}, {box!r}, lies beside the image of {width} x {height}")
  if max(x1 - x0, y1 - y0) > 16 * max(width, height):
    raise ValueError(
      f"the box of {name}, {box!r}, is far larger than its {width} x {height} pixels"
    )
  return (x0, y0, x1, y1)
