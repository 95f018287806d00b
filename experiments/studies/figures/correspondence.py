"""Figures of where points go: keypoint transfer, and the texture cycle."""

from typing import get_args

import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw

from experiments.studies.figures.subjects import Subjects
from umr_jax.geometry import camera
from umr_jax.models.assemble import face_flow
from umr_jax.predict.transfer import Method, transfer_keypoints
from umr_jax.render import rasterize
from umr_jax.viz.panels import labelled_grid

CELL = 192
_COLORS = (
  (230, 60, 50), (50, 130, 230), (60, 180, 80), (240, 170, 30), (170, 80, 200), (30, 190, 190),
  (240, 110, 170), (150, 110, 60),
)  # fmt: skip
_ROWS = 6
_FACES = 40  # that the texture cycle shows


def transfers(subjects: Subjects) -> np.ndarray:
  """Keypoints of one image carried to another, by each way of `transfer` (supplementary 4).

  Without annotated keypoints a grid of points inside the mask is carried. The two images of a row
  are neighbours in how well their masks are met.

  Args:
    subjects: of the run.
  """
  order = subjects.best_first()
  order = order[: max(2 * _ROWS, len(order) // 2)]
  chosen = [
    order[i] for i in np.linspace(0, len(order) - 1, min(2 * _ROWS, len(order))).round().astype(int)
  ]
  cells = []
  for a, b in zip(chosen[::2], chosen[1::2], strict=False):
    points = _points(subjects, a)
    source, target = subjects.reconstructions[a], subjects.reconstructions[b]
    x0, y0, x1, _ = source.box
    pixels = (points + 1.0) / 2.0 * (x1 - x0) + [x0, y0]
    row = [_dotted(source.image, points)]
    for method in get_args(Method):
      moved, _ = transfer_keypoints(source, target, pixels, method=method)
      u0, v0, u1, _ = target.box
      row.append(_dotted(target.image, 2.0 * (moved - [u0, v0]) / (u1 - u0) - 1.0))
    known = subjects.crops[b].keypoints
    if known is not None and subjects.crops[a].keypoints is not None:
      row.append(_dotted(target.image, known[:, :2], shown=known[:, 2] > 0.5))
    cells.append(row)
  names = ["source", *(f"by {method}" for method in get_args(Method)), "annotated"][
    : max(map(len, cells))
  ]
  return labelled_grid(cells, names, cell=CELL)


def _points(subjects: Subjects, index: int) -> np.ndarray:
  """What is carried, [N, 2] in [-1, 1] of the crop."""
  crop = subjects.crops[index]
  if crop.keypoints is not None:
    return crop.keypoints[:, :2].astype(np.float64)
  size = len(crop.mask)
  rows, columns = np.nonzero(crop.mask > 0.5)
  spread = np.linspace(0, len(rows) - 1, 10).round().astype(int)[1:-1]
  # Every so many pixels of a mask read column by column: from one end of the object to the other.
  order = np.lexsort((rows, columns))[spread]
  return (2.0 * np.stack([columns[order], rows[order]], axis=-1) + 1.0) / size - 1.0


def _dotted(
  image: np.ndarray, points: np.ndarray, *, shown: np.ndarray | None = None
) -> np.ndarray:
  """The crop with a dot of its own colour for each point."""
  picture = _enlarged(image)
  draw = ImageDraw.Draw(picture)
  for n, (x, y) in enumerate((points + 1.0) / 2.0 * CELL):
    if shown is None or shown[n]:
      draw.ellipse((x - 4, y - 4, x + 4, y + 4), _COLORS[n % len(_COLORS)], "white")
  return np.asarray(picture, np.float32) / np.float32(255.0)


def texture_cycle(subjects: Subjects) -> np.ndarray:
  """Where faces take their colour and where they land in the image (supplementary 3).

  A line joins the two for evenly spread visible faces: short lines close the cycle.
  """
  cells = []
  for i in subjects.best_first()[:_ROWS]:
    one = subjects.reconstructions[i]
    size = len(one.image)
    flow = face_flow(jnp.asarray(one.flow)[None], one.topology)[0].mean(axis=1)
    projected = camera.project(jnp.asarray(one.vertices), jnp.asarray(one.camera))
    corners = camera.face_vertices(projected[None], one.topology.faces)
    white = jnp.ones((1, corners.shape[1], 1, 1))
    seen = rasterize(corners, white, image_size=size, aggr_rgb="hard")
    visible = np.flatnonzero(np.asarray(seen.visible[0]))
    chosen = visible[
      np.linspace(0, len(visible) - 1, min(_FACES, len(visible))).round().astype(int)
    ]
    lands, takes = np.asarray(seen.landing[0])[chosen], np.asarray(flow)[chosen]
    cells.append([one.image, _joined(one.image, takes, lands)])
  return labelled_grid(cells, ["input", "takes (dot) to lands"], cell=CELL)


def _joined(image: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
  picture = _enlarged(image)
  draw = ImageDraw.Draw(picture)
  for n, (a, b) in enumerate(zip(first, second, strict=True)):
    (x0, y0), (x1, y1) = ((p + 1.0) / 2.0 * CELL for p in (a, b))
    draw.line((x0, y0, x1, y1), _COLORS[n % len(_COLORS)], 2)
    draw.ellipse((x0 - 2, y0 - 2, x0 + 2, y0 + 2), _COLORS[n % len(_COLORS)])
  return np.asarray(picture, np.float32) / np.float32(255.0)


def _enlarged(image: np.ndarray) -> Image.Image:
  pixels = np.round(np.clip(image, 0.0, 1.0) * 255).astype(np.uint8)
  return Image.fromarray(pixels).resize((CELL, CELL), Image.Resampling.BILINEAR)
