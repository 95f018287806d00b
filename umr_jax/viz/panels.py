"""Panels of predictions and of training, for visual inspection: no metric is computed from them."""

import colorsys
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from umr_jax.geometry import camera as camera_lib
from umr_jax.models.assemble import face_flow, sample_texels
from umr_jax.predict.views import over_white, render_views, shaded_views, template_views
from umr_jax.types import Topology
from umr_jax.viz.images import labelled_grid, resized, to_uint8

_CONTOUR = np.array([1.0, 0.35, 0.1], np.float32)
PANEL_CELL = 112  # pixels of a side of one image of the training panel


def overlay(image: np.ndarray, silhouette: np.ndarray) -> np.ndarray:
  """An image with the outline of a silhouette over it, and the outside dimmed.

  Args:
    image: [S, S, 3] in [0, 1].
    silhouette: [S, S] in [0, 1].

  Returns:
    float32 [S, S, 3].
  """
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
  """One row for one image: the crop, the predicted outline over it, and views from the sides.

  Args:
    image: [S, S, 3], the crop.
    silhouette: [S, S], the predicted one.
    views: [S', S', 4] each, of the mesh.
    azimuths: of the views, in degrees.
    cell: pixels of a side of one cell.

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
  """The predictions for B images, a row each, and the template below them.

  Columns: the image, its mask, the predicted outline over the image, the textured mesh from the
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
  """A map of part probabilities [H, W, P + 1], background first, as colours; uint8 [H, W, 3]."""
  count = parts.shape[-1] - 1
  hues = [colorsys.hsv_to_rgb(k / max(count, 1), 0.65, 0.9) for k in range(count)]
  palette = np.array([(0.93, 0.93, 0.93), *hues], np.float32)
  return to_uint8(parts @ palette)
