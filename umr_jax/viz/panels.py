"""Pictures of predictions and of training: panels to look at, not numbers to trust."""

import colorsys
import io
import os
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from umr_jax.files import write_bytes
from umr_jax.geometry import camera as camera_lib
from umr_jax.models.assemble import face_flow, sample_texels
from umr_jax.predict.views import over_white, render_views, shaded_views, template_views
from umr_jax.types import Topology

_CONTOUR = np.array([1.0, 0.35, 0.1], np.float32)
_GAP = 2
PANEL_CELL = 112  # pixels of a side of one picture of the training panel


def overlay(image: np.ndarray, silhouette: np.ndarray) -> np.ndarray:
  """The picture [S, S, 3] with what is outside the silhouette [S, S] dimmed, and its outline."""
  inside = silhouette >= 0.5
  edge = np.zeros_like(inside)
  for axis in (0, 1):
    change = np.diff(inside, axis=axis) != 0
    edge |= np.pad(change, [(0, 1) if a == axis else (0, 0) for a in (0, 1)])
  shown = image * (0.45 + 0.55 * silhouette[..., None])
  return np.where(edge[..., None], _CONTOUR, shown).astype(np.float32)


def prediction_strip(
  image: np.ndarray,
  silhouette: np.ndarray,
  views: Sequence[np.ndarray],
  *,
  azimuths: Sequence[float],
  cell: int = 192,
) -> np.ndarray:
  """One row for one photograph: the crop, the outline over it, and views from the sides.

  Args:
    image: [S, S, 3], the crop.
    silhouette: [S, S], the predicted one.
    views: [S', S', 4] each, of the mesh.
    azimuths: of the views, in degrees.
    cell: pixels of a side of one picture.

  Returns:
    uint8 [H, W, 3].
  """
  cells = [image, overlay(image, silhouette), *[over_white(view) for view in views]]
  names = ["input", "outline", *[f"turned {azimuth:g}" for azimuth in azimuths]]
  return labelled_grid([cells], names, cell=cell)


def training_panel(
  images: np.ndarray,
  masks: np.ndarray,
  *,
  vertices: np.ndarray,
  cameras: np.ndarray,
  flow_maps: np.ndarray,
  template: np.ndarray,
  topology: Topology,
) -> np.ndarray:
  """What the network makes of B pictures, a row each, and the template below them.

  Columns: the picture, its mask, the predicted outline over the picture, the textured mesh from the
  predicted camera and turned by 90 and 180 degrees about the object's vertical, and the shape.

  Args:
    images: [B, S, S, 3] in [0, 1].
    masks: [B, S, S].
    vertices: [B, V, 3], the predicted shapes.
    cameras: [B, 7], the most probable ones.
    flow_maps: [B, Hu, Wu, 2].
    template: [V, 3].
    topology: of all of them.

  Returns:
    uint8 [H, W, 3].
  """
  cell = PANEL_CELL
  images, masks = np.asarray(images, np.float32), np.asarray(masks, np.float32)
  vertices, cameras = np.asarray(vertices, np.float32), np.asarray(cameras, np.float32)
  flow = face_flow(jnp.asarray(flow_maps), topology)
  texels = np.asarray(sample_texels(jnp.asarray(images), flow))
  turned = np.asarray(camera_lib.spread_azimuth(jnp.asarray(cameras), 4))
  textured = [
    render_views(vertices, turned[:, k], texels, topology, image_size=cell) for k in (0, 1, 2)
  ]
  shaded = shaded_views(vertices, cameras, topology, image_size=cell)
  rows = []
  for b in range(len(images)):
    small = resized(images[b], cell)
    rows.append(
      [
        small,
        np.repeat(resized(masks[b, ..., None], cell), 3, axis=-1),
        overlay(small, textured[0][b, ..., 3]),
        *[over_white(view[b]) for view in textured],
        over_white(shaded[b]),
      ]
    )
  rows.append([over_white(view) for view in template_views(template, topology, cell=cell)])
  names = ["input", "mask", "outline", "textured", "turned 90", "turned 180", "shape"]
  return labelled_grid(rows, names, cell=cell, last_row="template, turned by 90 each")


def part_map(parts: np.ndarray) -> np.ndarray:
  """A map of part probabilities [H, W, P + 1], background first, in colours; uint8 [H, W, 3]."""
  count = parts.shape[-1] - 1
  hues = [colorsys.hsv_to_rgb(k / max(count, 1), 0.65, 0.9) for k in range(count)]
  palette = np.array([(0.93, 0.93, 0.93), *hues], np.float32)
  return np.round(np.clip(parts @ palette, 0.0, 1.0) * 255).astype(np.uint8)


def resized(image: np.ndarray, size: int) -> np.ndarray:
  """A float picture [S, S, C] at another size, averaged when it shrinks."""
  if image.shape[:2] == (size, size):
    return image.astype(np.float32)
  shape = (size, size, image.shape[-1])
  return np.asarray(jax.image.resize(jnp.asarray(image, jnp.float32), shape, "linear"))


def labelled_grid(
  rows: Sequence[Sequence[np.ndarray]], names: Sequence[str], *, cell: int, last_row: str = ""
) -> np.ndarray:
  """Pictures in rows under the names of their columns; uint8 [H, W, 3] on white.

  Args:
    rows: float pictures [S, S, 3] in [0, 1] of any sizes; rows may differ in length.
    names: of the columns.
    cell: pixels of a side of each.
    last_row: a line of text above the last row, or nothing.
  """
  text_size = max(10, cell // 9)
  font = ImageFont.load_default(size=text_size)
  line = text_size + 6
  width = len(names) * (cell + _GAP) + _GAP
  height = line + len(rows) * (cell + _GAP) + _GAP + (line if last_row else 0)
  canvas = np.full((height, width, 3), 255, np.uint8)
  text = []
  top = line
  for index, row in enumerate(rows):
    if last_row and index == len(rows) - 1:
      text.append(((_GAP + 2, top + 2), last_row))
      top += line
    for column, picture in enumerate(row):
      left = _GAP + column * (cell + _GAP)
      values = np.clip(resized(picture, cell), 0.0, 1.0)
      canvas[top : top + cell, left : left + cell] = np.round(values * 255)
    top += cell + _GAP
  page = Image.fromarray(canvas)
  draw = ImageDraw.Draw(page)
  text += [((_GAP + k * (cell + _GAP) + 2, 2), name) for k, name in enumerate(names)]
  for position, words in text:
    draw.text(position, words, fill=(40, 40, 40), font=font)
  return np.asarray(page)


def save_png(path: str | os.PathLike[str], image: np.ndarray) -> None:
  """Writes a uint8 picture, or a float one in [0, 1], as a PNG; whole or not at all.

  Raises:
    ValueError: for a picture of another type or shape, or with NaN.
  """
  pixels = np.asarray(image)
  if pixels.dtype.kind == "f":
    if not np.isfinite(pixels).all():
      raise ValueError(f"the picture for {os.fspath(path)} has NaN or infinite values")
    pixels = np.round(np.clip(pixels, 0.0, 1.0) * 255).astype(np.uint8)
  if (
    pixels.dtype != np.uint8
    or pixels.ndim not in (2, 3)
    or pixels.shape[2:] not in ((), (3,), (4,))
  ):
    raise ValueError(f"found a picture of {pixels.dtype} {pixels.shape}; expected uint8 [H, W, 3]")
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, format="PNG")
  write_bytes(pathlib.Path(path), buffer.getvalue())
