"""Reading images, masks, part maps and meshes; whatever is wrong with a file becomes a reason."""

import pathlib
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps

Result = TypeVar("Result")


IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


class BadItemError(ValueError):
  """One item of a data set cannot be used; the message gives the reason."""


def list_files(
  folder: pathlib.Path, suffixes: tuple[str, ...], skipped: list[tuple[str, str]]
) -> dict[str, pathlib.Path]:
  """The files of a folder by name without suffix, sorted.

  Args:
    folder: which exists.
    suffixes: of the files that are listed, in lower case.
    skipped: takes (name, reason) of a file that has another's name but for the suffix.
  """
  listed: dict[str, pathlib.Path] = {}
  for path in sorted(folder.iterdir()):
    # Names with a leading dot are other programs' notes, such as macOS's ._NAME.jpg.
    if path.suffix.lower() not in suffixes or path.name.startswith(".") or not path.is_file():
      continue
    if path.stem in listed:
      skipped.append((path.name, f"{folder.name}/{listed[path.stem].name} has the same name"))
    else:
      listed[path.stem] = path
  return listed


def to_bytes(values: np.ndarray) -> np.ndarray:
  """Floats as uint8 in 0..255: clipped to [0, 1] and rounded."""
  return np.round(255.0 * np.clip(values, 0.0, 1.0)).astype(np.uint8)


def decode(what: str, read: Callable[[], Result]) -> Result:
  """Runs a decoder of foreign bytes and turns its failure into a reason.

  Args:
    what: is decoded, for the reason.
    read: the decoder.

  Raises:
    BadItemError: when it fails.
  """
  try:
    return read()
  except BadItemError:
    raise
  except Exception as error:
    # Decoders raise exceptions of any type for damaged files (OSError, SyntaxError, zlib.error,
    # DecompressionBombError, ...): all of them mean that this one item is unreadable.
    raise BadItemError(f"{what} cannot be read ({type(error).__name__}: {error})") from error


def read_image(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray | None]:
  """An image, upright by its EXIF orientation.

  Returns:
    [H, W, 3] uint8, with transparent pixels laid over white, and the alpha channel [H, W] float32
    in [0, 1], or None where there is none or it is opaque throughout.

  Raises:
    BadItemError: when the file is no readable image.
  """
  return decode(f"{path.parent.name}/{path.name}", lambda: _read_image(path))


def _read_image(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray | None]:
  with Image.open(path) as opened:
    image = ImageOps.exif_transpose(opened)
    image.load()
  if image.mode.startswith("I") or image.mode == "F":
    grey = np.round(255.0 * _unit_range(np.asarray(image))).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1), None
  if image.mode not in ("RGBA", "LA", "PA", "La", "RGBa") and "transparency" not in image.info:
    return np.asarray(image.convert("RGB")), None
  rgba = image.convert("RGBA")
  alpha = np.asarray(rgba)[..., 3].astype(np.float32) / np.float32(255.0)
  white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
  colors = np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))
  return colors, None if (alpha == 1.0).all() else alpha


def read_mask(path: pathlib.Path) -> np.ndarray:
  """A silhouette of any PNG kind as [H, W] float32 in [0, 1].

  Values are taken over the type's largest, or as they are where nothing exceeds 1. Of an image in
  colours the brightest channel counts, of one with transparency the alpha channel, of one with a
  coloured palette (a label map) every entry but the first.

  Raises:
    BadItemError: when the file is no readable image.
  """
  return decode(f"{path.parent.name}/{path.name}", lambda: _read_mask(path))


def _read_mask(path: pathlib.Path) -> np.ndarray:
  with Image.open(path) as opened:
    mask = ImageOps.exif_transpose(opened)
    mask.load()
  if mask.mode == "P" and "transparency" not in mask.info:
    indices = np.asarray(mask)
    colors = np.asarray(mask.convert("RGB"))
    if (colors == colors[..., :1]).all():
      return _unit_range(colors[..., 0])
    return (indices > 0).astype(np.float32)
  if mask.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in mask.info:
    rgba = np.asarray(mask.convert("RGBA"))
    opaque = (rgba[..., 3] == rgba[0, 0, 3]).all()
    return _unit_range(rgba[..., :3].max(axis=-1) if opaque else rgba[..., 3])
  if mask.mode in ("1", "L") or mask.mode.startswith("I") or mask.mode == "F":
    return _unit_range(np.asarray(mask))
  return _unit_range(np.asarray(mask.convert("RGB")).max(axis=-1))


def _unit_range(values: np.ndarray) -> np.ndarray:
  """Integer or float pixel values as float32 in [0, 1]."""
  if values.dtype == np.bool_ or values.max(initial=0) <= 1:
    return np.clip(values.astype(np.float32), 0.0, 1.0)
  # PIL reads 16-bit files as int32 in some of its versions.
  largest = 255.0 if values.dtype == np.uint8 or values.dtype.kind == "f" else 65535.0
  return np.clip(values.astype(np.float32) / np.float32(largest), 0.0, 1.0)


def read_parts(path: pathlib.Path, *, channels: int) -> np.ndarray:
  """A part map as probabilities that sum to one.

  Args:
    path: of the npz file.
    channels: P + 1 that it must have.

  Returns:
    [H, W, channels] float32, background first.

  Raises:
    BadItemError: when the file has neither `probs` nor `parts`, or not with these channels.
  """
  what = f"{path.parent.name}/{path.name}"
  arrays = _load_parts(path)
  if "probs" in arrays:
    probs = arrays["probs"].astype(np.float32)
    if probs.ndim != 3 or probs.shape[-1] != channels:
      raise BadItemError(f"{what}: probs has shape {probs.shape}, expected [H, W, {channels}]")
    if not np.isfinite(probs).all() or probs.min() < 0.0:
      raise BadItemError(f"{what}: probs has negative or non-finite values")
  elif "parts" in arrays:
    labels = arrays["parts"]
    if labels.ndim != 2 or labels.min(initial=0) < 0 or labels.max(initial=0) >= channels:
      raise BadItemError(f"{what}: parts must be labels [H, W] from 0 to {channels - 1}")
    probs = np.eye(channels, dtype=np.float32)[labels.astype(np.int64)]
  else:
    raise BadItemError(f"{what} has neither an array 'probs' nor an array 'parts'")
  total = probs.sum(axis=-1, keepdims=True)
  probs[..., :1] += total == 0.0  # a pixel without any part is background
  return probs / np.where(total == 0.0, np.float32(1.0), total)


def _load_parts(path: pathlib.Path) -> dict[str, np.ndarray]:
  what = f"{path.parent.name}/{path.name}"
  arrays = decode(what, lambda: _read_npz(path, ("probs", "parts")))
  for name, kinds in (("probs", "fiu"), ("parts", "iub")):
    if name in arrays and arrays[name].dtype.kind not in kinds:
      raise BadItemError(f"{what}: {name} holds {arrays[name].dtype}, expected numbers")
  return arrays


def count_part_channels(paths: list[pathlib.Path]) -> int:
  """P + 1: of the first file with `probs`, else from the largest label of all; 0 for no file."""
  largest = 0
  for path in paths:
    try:
      arrays = _load_parts(path)
    except BadItemError:
      continue  # listed with its item, unless no map at all can be read
    if "probs" in arrays and arrays["probs"].ndim == 3:
      return int(arrays["probs"].shape[-1])
    if "parts" in arrays:
      largest = max(largest, int(arrays["parts"].max(initial=0)))
  return largest + 1 if largest > 0 else 0


def read_mesh(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  """Vertices [V, 3] float32 and faces [F, 3] int32 of a mesh file.

  Raises:
    BadItemError: when they are missing, not finite, or point outside.
  """
  what = f"{path.parent.name}/{path.name}"
  arrays = decode(what, lambda: _read_npz(path, ("vertices", "faces")))
  if set(arrays) != {"vertices", "faces"}:
    raise BadItemError(f"{what} must hold the arrays 'vertices' and 'faces'")
  vertices, faces = arrays["vertices"].astype(np.float32), arrays["faces"]
  if vertices.ndim != 2 or vertices.shape[1] != 3 or not np.isfinite(vertices).all():
    raise BadItemError(f"{what}: vertices must be finite and [V, 3], got {vertices.shape}")
  if faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype.kind not in "iu" or faces.size == 0:
    raise BadItemError(f"{what}: faces must be integers [F, 3], got {faces.shape} {faces.dtype}")
  if faces.min() < 0 or faces.max() >= vertices.shape[0]:
    raise BadItemError(f"{what}: faces point outside the {vertices.shape[0]} vertices")
  return vertices, faces.astype(np.int32)


def _read_npz(path: pathlib.Path, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
  with np.load(path, allow_pickle=False) as archive:
    return {key: archive[key] for key in keys if key in archive}
