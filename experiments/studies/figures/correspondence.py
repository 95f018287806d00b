"""Figures of correspondences: keypoint transfer, and the texture cycle."""

from typing import get_args

import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw

from experiments.studies.figures.grids import Color, Subjects, evenly_spaced, with_points
from umr_jax.geometry import camera
from umr_jax.models.assemble import face_flow
from umr_jax.predict.transfer import Method, transfer_keypoints
from umr_jax.render import rasterize
from umr_jax.viz.images import labelled_grid, resized, to_uint8

CELL = 192
_COLORS: tuple[Color, ...] = (
  (230, 60, 50), (50, 130, 230), (60, 180, 80), (240, 170, 30), (170, 80, 200), (30, 190, 190),
  (240, 110, 170), (150, 110, 60),
)  # fmt: skip
_ROWS = 6
_FACES = 40  # that the texture cycle shows


def transfers(subjects: Subjects) -> np.ndarray:
  """Keypoints of one image transferred to another, by each method (supplementary 4).

  Without annotated keypoints, points spread over the mask are transferred. The two images of a row
  are neighbours by mask IoU.

  Args:
    subjects: of the run.
  """
  order = subjects.best_first()
  chosen = evenly_spaced(order[: max(2 * _ROWS, len(order) // 2)], 2 * _ROWS)
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
  """The points to transfer, [N, 2] in [-1, 1] of the crop."""
  crop = subjects.crops[index]
  if crop.keypoints is not None:
    return crop.keypoints[:, :2].astype(np.float64)
  size = len(crop.mask)
  rows, columns = np.nonzero(crop.mask > 0.5)
  spread = np.linspace(0, len(rows) - 1, 10).round().astype(int)[1:-1]
  # Evenly spaced pixels of a mask read column by column: from one end of the object to the other.
  order = np.lexsort((rows, columns))[spread]
  return (2.0 * np.stack([columns[order], rows[order]], axis=-1) + 1.0) / size - 1.0


def _dotted(
  image: np.ndarray, points: np.ndarray, *, shown: np.ndarray | None = None
) -> np.ndarray:
  """The crop with a disc of its own colour for each point that is shown."""
  visible = range(len(points)) if shown is None else np.flatnonzero(shown).tolist()
  colors = [_COLORS[n % len(_COLORS)] for n in visible]
  return with_points(image, points[visible], colors, radius=4, size=CELL, outline="white")


def texture_cycle(subjects: Subjects) -> np.ndarray:
  """Where faces sample their texture, and where they project to (supplementary 3).

  A line joins the two for evenly spread visible faces; a short line is a small L_tcyc.
  """
  cells = []
  for i in subjects.best_first()[:_ROWS]:
    one = subjects.reconstructions[i]
    size = len(one.image)
    flow = face_flow(jnp.asarray(one.flow)[None], one.topology)[0].mean(axis=1)
    projected = camera.project(jnp.asarray(one.vertices), jnp.asarray(one.camera))
    corners = camera.face_vertices(projected[None], one.topology.faces)
    white = jnp.ones((1, corners.shape[1], 1, 1))
    fragments = rasterize(corners, white, image_size=size, aggr_rgb="hard")
    visible = np.flatnonzero(np.asarray(fragments.visible[0]))
    chosen = evenly_spaced(visible.tolist(), _FACES)
    projected_to, sampled_at = np.asarray(fragments.landing[0])[chosen], np.asarray(flow)[chosen]
    cells.append([one.image, _joined(one.image, sampled_at, projected_to)])
  return labelled_grid(cells, ["input", "sampled (dot) to projected"], cell=CELL)


def _joined(image: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """The image with a line from each first point, which has a disc, to its second."""
  canvas = Image.fromarray(to_uint8(resized(image, CELL)))
  pen = ImageDraw.Draw(canvas)
  colors = [_COLORS[n % len(_COLORS)] for n in range(len(first))]
  for a, b, color in zip(first, second, colors, strict=True):
    ends = [tuple(((point + 1.0) / 2.0 * CELL).tolist()) for point in (a, b)]
    pen.line(ends, color, 2)
  return with_points(np.asarray(canvas), first, colors, radius=2, size=CELL)
