"""Predicted shapes against true ones, after the alignment that the training split fixes."""

from collections.abc import Mapping

import numpy as np
from scipy.spatial import KDTree

from umr_jax.eval.camera_error import Alignment, box_similarity, boxes, global_rotation
from umr_jax.eval.predictions import Predictions
from umr_jax.geometry.voxels import Mesh, solid_iou

Meshes = Mapping[str, tuple[np.ndarray, np.ndarray]]
GRID = 32  # voxels per side
# Points that lie nearer to the other surface, in diagonals of the true mesh's box, are close.
CLOSE = 0.02
# Sampled on each surface, evenly by area. They distinguish surfaces that lie more than about 0.002
# diagonals from each other.
POINTS = 10000


def known_shapes(predictions: Predictions, meshes: Meshes) -> np.ndarray:
  """The rows whose true mesh is known.

  Args:
    predictions: of a split.
    meshes: the true meshes by name.
  """
  return np.array([i for i, key in enumerate(predictions.shapes) if key in meshes], np.int64)


def fit_alignment(predictions: Predictions, meshes: Meshes) -> Alignment | None:
  """The similarity from the learned frame to the true one, fixed on a (training) split.

  Args:
    predictions: predictions of the split.
    meshes: the true meshes by name.

  Returns:
    The alignment; without true meshes it only rotates, and without true cameras it is None.
  """
  known = predictions.has_camera
  if not known.any():
    return None
  rotation = global_rotation(
    predicted=predictions.rotations[known], true=predictions.true_rotations[known]
  )
  rows = known_shapes(predictions, meshes)
  if not rows.size:
    return Alignment(rotation, np.zeros(3), 1.0)
  # Many images share one true mesh.
  true_boxes = {key: _box(meshes[key]) for key in {predictions.shapes[i] for i in rows} if key}
  translation, scale = box_similarity(
    predicted=boxes(predictions.vertices[rows] @ rotation),
    true=np.stack([true_boxes[key] for i in rows if (key := predictions.shapes[i])]),
  )
  return Alignment(rotation, translation, scale)


def shape_errors(
  predictions: Predictions,
  faces: np.ndarray,
  meshes: Meshes,
  alignment: Alignment,
  *,
  limit: int,
  seed: int,
) -> dict[str, np.ndarray]:
  """3D IoU and Chamfer distance of predicted meshes, image by image.

  Args:
    predictions: predictions of the split to evaluate.
    faces: of the predicted meshes.
    meshes: the true meshes by name.
    alignment: from `fit_alignment`, on the training split.
    limit: how many images, evenly spaced over the split, are evaluated at most.
    seed: of the points sampled for the Chamfer distance.

  Returns:
    [N] per metric of `mesh_errors`, after the category's alignment. Empty where no true mesh is
    known.
  """
  rows = known_shapes(predictions, meshes)
  if not rows.size:
    return {}
  errors = []
  for row in rows[spread(rows.size, limit)]:
    predicted = Mesh(alignment.apply(predictions.vertices[row]), faces)
    errors.append(mesh_errors(predicted, Mesh(*meshes[predictions.shapes[row] or ""]), seed=seed))
  return {name: np.array([e[name] for e in errors]) for name in errors[0]}


def mesh_errors(predicted: Mesh, true: Mesh, *, seed: int) -> dict[str, float]:
  """How far one mesh is from another, in the frame of both.

  Args:
    predicted: one mesh.
    true: the other.
    seed: of the points sampled for the Chamfer distance.

  Returns:
    `iou_3d`, `chamfer_l1` and `f_score` as the meshes lie, and `iou_3d_instance` after aligning box
    centre and box volume of the predicted one.
  """
  translation, scale = box_similarity(predicted=_box(predicted)[None], true=_box(true)[None])
  own = Mesh((predicted.vertices + translation) * scale, predicted.faces)
  chamfer, score = surface_errors(predicted=predicted, true=true, seed=seed)
  return {
    "iou_3d": solid_iou(predicted, true, resolution=GRID),
    "iou_3d_instance": solid_iou(own, true, resolution=GRID),
    "chamfer_l1": chamfer,
    "f_score": score,
  }


def spread(count: int, limit: int) -> np.ndarray:
  """At most a given number of rows, evenly spaced from the first to the last.

  Args:
    count: of all rows.
    limit: of those that are taken.
  """
  return np.linspace(0, count - 1, min(limit, count)).round().astype(np.int64)


def _box(mesh: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
  """The box of what the faces show; a mesh file may hold vertices that no face uses."""
  vertices, faces = mesh
  return boxes(np.asarray(vertices, np.float64)[np.unique(faces)])


def surface_errors(*, predicted: Mesh, true: Mesh, seed: int = 0) -> tuple[float, float]:
  """Chamfer-L1 and F-score of two surfaces.

  Args:
    predicted: one mesh.
    true: the other, in the same frame.
    seed: of the samples. Both surfaces use the same one, so that equal meshes are 0 apart.

  Returns:
    Half the sum of the mean distances from each surface's points to the nearest of the other's, in
    diagonals of the true mesh's box; and the harmonic mean of the shares of each surface's points
    that lie nearer than `CLOSE` diagonals to the other's.

  Raises:
    ValueError: for a mesh without area.

  Source: Mescheder et al. 2019 (Occupancy Networks), Chamfer-L1, with the box's diagonal as unit;
    Knapitsch et al. 2017 (Tanks and Temples), F-score.
  """
  a, b = (sample_surface(mesh, points=POINTS, seed=seed) for mesh in (predicted, true))
  corners = np.asarray(true.vertices, np.float64)[np.asarray(true.faces)].reshape(-1, 3)
  diagonal = np.linalg.norm(corners.max(axis=0) - corners.min(axis=0))
  distances = [KDTree(x).query(y)[0] / diagonal for x, y in ((a, b), (b, a))]
  recall, precision = (float((d < CLOSE).mean()) for d in distances)
  score = 2.0 * precision * recall / (precision + recall) if precision + recall else 0.0
  return float(np.mean([d.mean() for d in distances])), score


def sample_surface(mesh: Mesh, *, points: int, seed: int) -> np.ndarray:
  """Samples points uniformly on a surface.

  Args:
    mesh: at least one of its faces must have area.
    points: how many.
    seed: of the samples.

  Returns:
    [points, 3], float64.

  Raises:
    ValueError: if the mesh has no area, or its coordinates are not finite.
  """
  corners = np.asarray(mesh.vertices, np.float64)[np.asarray(mesh.faces)]
  sides = corners[:, 1:] - corners[:, :1]
  area = np.cumsum(np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=-1))
  if not area.size or not np.isfinite(area[-1]) or area[-1] <= 0.0:
    raise ValueError(f"cannot sample points on a mesh of {len(corners)} faces without finite area")
  rng = np.random.default_rng(seed)
  # Evenly spaced quantiles of the area leave less to chance than independent samples.
  quantiles = (np.arange(points) + rng.uniform(size=points)) / points
  chosen = np.minimum(np.searchsorted(area / area[-1], quantiles, side="right"), len(corners) - 1)
  u, v = rng.uniform(size=(2, points))
  over = u + v > 1.0
  u, v = np.where(over, 1.0 - u, u), np.where(over, 1.0 - v, v)
  return corners[chosen, 0] + u[:, None] * sides[chosen, 0] + v[:, None] * sides[chosen, 1]
