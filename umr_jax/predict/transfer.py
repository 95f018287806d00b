"""Keypoint transfer: where a point of one photograph is in another of the same category.

`transfer_keypoints` works in pixels of the photographs, `by_flow`, `by_camera` and `by_surface` in
coordinates of the crops, [-1, 1] from outer edge to outer edge.
"""

from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from scipy.spatial import KDTree

from umr_jax.geometry import camera as camera_lib
from umr_jax.geometry.picking import pick
from umr_jax.models.assemble import face_flow
from umr_jax.predict.reconstruction import Reconstruction

Method = Literal["flow", "camera", "surface"]

# The width of the peak around the source point: 3 pixels of a crop of 256.
_SIGMA = 3.0 * 2.0 / 256.0
# How far a point may be from a template vertex, and a vertex from the silhouette, before the
# transfer by camera is in doubt: a twentieth of the crop's side.
_DOUBT = 0.1
# How far behind the surface that the target shows a point may lie, in units of the crop, before it
# counts as hidden; and what is left of its confidence.
_DEPTH_TOLERANCE, _HIDDEN = 0.05, 0.1


def transfer_keypoints(
  rec_a: Reconstruction,
  rec_b: Reconstruction,
  points_a: Any,
  method: Method = "flow",
) -> tuple[np.ndarray, np.ndarray]:
  """Finds the points of one photograph in another of the same category.

  Args:
    rec_a: of the photograph that the points are in.
    rec_b: of the other, from the same checkpoint.
    points_a: [N, 2], (x, y) in pixels of the input, (0.5, 0.5) the centre of the first.
    method: "flow" goes by the face that samples its texture at the point, and needs neither shape
      nor camera; "camera" by the template seen through both cameras; "surface" by the point of the
      source's own mesh that is seen there, and where the target's own mesh has it.

  Returns:
    Points [N, 2] in pixels of the other input, and confidence [N] in [0, 1]: only the order of
    confidences of one method has a meaning.

  Raises:
    ValueError: for points that are not finite [N, 2], or reconstructions of different meshes.

  Source: Li et al. 2020, section 4.3.
  """
  points = np.asarray(points_a, np.float64)
  if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
    raise ValueError(f"points_a has shape {points.shape}; expected finite (x, y) rows, [N, 2]")
  if rec_a.vertices.shape != rec_b.vertices.shape or rec_a.flow.shape != rec_b.flow.shape:
    raise ValueError("the reconstructions have different meshes: take both from one checkpoint")
  (x0, y0, x1, _), (u0, v0, u1, _) = rec_a.box, rec_b.box
  inside = 2.0 * (points - [x0, y0]) / (x1 - x0) - 1.0
  if method == "flow":
    flows = face_flow(jnp.asarray(np.stack([rec_a.flow, rec_b.flow])), rec_a.topology)
    source, target = np.asarray(flows)
    moved, confidence = by_flow(inside, source_flow=source, target_flow=target)
  elif method == "camera":
    moved, confidence = by_camera(
      inside,
      source_vertices=_projected(rec_a.template, rec_a.camera)[:, :2],
      target_vertices=_projected(rec_b.template, rec_b.camera)[:, :2],
      target_silhouette=rec_b.silhouette,
    )
  elif method == "surface":
    moved, confidence = by_surface(
      inside,
      source_vertices=_projected(rec_a.vertices, rec_a.camera),
      target_vertices=_projected(rec_b.vertices, rec_b.camera),
      faces=rec_a.faces,
    )
  else:
    raise ValueError(f"method is {method!r}; expected 'flow', 'camera' or 'surface'")
  return (moved + 1.0) / 2.0 * (u1 - u0) + [u0, v0], confidence


def _projected(vertices: np.ndarray, camera: np.ndarray) -> np.ndarray:
  return np.asarray(camera_lib.project(jnp.asarray(vertices), jnp.asarray(camera)), np.float64)


def by_flow(
  points: np.ndarray, *, source_flow: np.ndarray, target_flow: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Carries points over by the face whose texels sample the source at the point.

  Args:
    points: [N, 2] in the source's crop.
    source_flow: [F, T, 2], where each texel of each face samples the source's crop.
    target_flow: [F, T, 2], the same for the target.

  Returns:
    Positions [N, 2] in the target's crop, the mean over the chosen face's texels; and confidence
    [N] in [0, 1], the mean over its texels of a peak of width 3 / 256 around the point. Where no
    face samples near the point, confidence is 0 and the nearest face decides.

  Source: Li et al. 2020, section 4.3, keypoint transfer by texture flow.
    Departs: the peak is a formula, not an image of 256 x 256 pixels, so that nothing depends on
    where in a pixel a point lies; and without any hit, the nearest face replaces the first.
  """
  positions, confidence = np.zeros((len(points), 2)), np.zeros(len(points))
  for n, point in enumerate(points):
    squared = np.sum(np.square(source_flow - point), axis=-1)  # [F, T]
    peak = np.exp(-squared / (2 * _SIGMA**2))
    score = np.where(squared <= (3 * _SIGMA) ** 2, peak, 0.0).mean(axis=-1)
    face = int(np.argmax(score)) if score.any() else int(np.argmin(squared.min(axis=-1)))
    positions[n], confidence[n] = target_flow[face].mean(axis=0), score[face]
  return positions, confidence


def by_camera(
  points: np.ndarray,
  *,
  source_vertices: np.ndarray,
  target_vertices: np.ndarray,
  target_silhouette: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """Carries points over by the nearest template vertex, seen through both cameras.

  Args:
    points: [N, 2] in the source's crop.
    source_vertices: [V, 2], the template's vertices under the source's camera, all of them, in
      front or behind.
    target_vertices: [V, 2], the same under the target's camera.
    target_silhouette: [S, S], the target's predicted silhouette.

  Returns:
    Positions [N, 2] in the target's crop: the centre of the silhouette's pixel that is nearest to
    the vertex (the vertex itself if nothing is covered). And confidence [N] in [0, 1], which falls
    with the distances from point to vertex and from vertex to silhouette.

  Source: Li et al. 2020, section 4.3, keypoint transfer by camera; Kulkarni et al. 2019 (CSM).
  """
  chosen = nearest_rows(points, source_vertices)
  carried = target_vertices[chosen]
  positions = nearest_covered(carried, target_silhouette)
  off = np.square(source_vertices[chosen] - points) + np.square(positions - carried)
  confidence = np.exp(-off.sum(axis=-1) / (2 * _DOUBT**2))
  return positions, confidence if (target_silhouette > 0.0).any() else np.zeros(len(points))


def by_surface(
  points: np.ndarray,
  *,
  source_vertices: np.ndarray,
  target_vertices: np.ndarray,
  faces: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """Carries points over by the surface that is seen there.

  Args:
    points: [N, 2] in the source's crop.
    source_vertices: [V, 3], the source's own mesh under its camera: (x, y, depth).
    target_vertices: [V, 3], the target's.
    faces: [F, 3] of both.

  Returns:
    Positions [N, 2] in the target's crop. And confidence [N] in [0, 1]: it falls with the distance
    of a point from the source's mesh, and to a tenth where the target's own mesh hides it.

  Departs: not in Li et al. 2020, whose ways end at the nearest face or vertex, in front or behind.
  """
  found = pick(points, source_vertices, faces)
  moved = found.at(target_vertices)
  shown = pick(moved[:, :2], target_vertices, faces).at(target_vertices)[:, 2]
  confidence = np.exp(-np.square(found.distance) / (2 * _DOUBT**2))
  return moved[:, :2], np.where(moved[:, 2] > shown + _DEPTH_TOLERANCE, _HIDDEN, 1.0) * confidence


def nearest_rows(points: np.ndarray, rows: np.ndarray) -> np.ndarray:
  """For each point [N, 2] the nearest of some others [V, 2], as indices [N]."""
  squared = np.sum(np.square(points[:, None] - rows[None]), axis=-1)
  return np.argmin(squared, axis=-1)


def nearest_covered(points: np.ndarray, silhouette: np.ndarray) -> np.ndarray:
  """The centre of the nearest covered pixel for each point [N, 2]; the point, if none is covered.

  Args:
    points: in [-1, 1] of the silhouette's crop.
    silhouette: [S, S], covered where positive.
  """
  size = silhouette.shape[0]
  rows, columns = np.nonzero(silhouette > 0.0)
  if not len(rows):
    return np.array(points, np.float64)
  centers = (2.0 * np.stack([columns, rows], axis=-1) + 1.0 - size) / size
  return centers[KDTree(centers).query(points)[1]]
