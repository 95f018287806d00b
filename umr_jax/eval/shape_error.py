"""Predicted shapes against true ones, after the alignment that the training split fixes."""

from collections.abc import Mapping

import numpy as np

from umr_jax.eval.alignment import Alignment, box_similarity, boxes, global_rotation
from umr_jax.eval.chamfer import surface_errors
from umr_jax.eval.collect import Collected
from umr_jax.geometry.voxels import Mesh, solid_iou

Meshes = Mapping[str, tuple[np.ndarray, np.ndarray]]
GRID = 32  # voxels per side


def known_shapes(collected: Collected, meshes: Meshes) -> np.ndarray:
  """The rows whose true mesh is known."""
  return np.array([i for i, key in enumerate(collected.shapes) if key in meshes], np.int64)


def fit_alignment(collected: Collected, meshes: Meshes) -> Alignment | None:
  """The similarity from the learned frame to the true one, fixed on a (training) split.

  Args:
    collected: predictions of the split.
    meshes: the true meshes by name.

  Returns:
    The alignment; without true meshes it only rotates, and without true cameras it is None.
  """
  seen = collected.has_camera
  if not seen.any():
    return None
  rotation = global_rotation(
    predicted=collected.rotations[seen], true=collected.true_rotations[seen]
  )
  rows = known_shapes(collected, meshes)
  if not rows.size:
    return Alignment(rotation, np.zeros(3), 1.0)
  # Many images share one true mesh.
  true_boxes = {key: _box(meshes[key]) for key in {collected.shapes[i] for i in rows} if key}
  translation, scale = box_similarity(
    predicted=boxes(collected.vertices[rows] @ rotation),
    true=np.stack([true_boxes[key] for i in rows if (key := collected.shapes[i])]),
  )
  return Alignment(rotation, translation, scale)


def shape_errors(
  collected: Collected,
  faces: np.ndarray,
  meshes: Meshes,
  alignment: Alignment,
  *,
  limit: int,
  seed: int,
) -> dict[str, np.ndarray]:
  """3D IoU and Chamfer distance of predicted meshes, image by image.

  Args:
    collected: predictions of the split to judge.
    faces: of the predicted meshes.
    meshes: the true meshes by name.
    alignment: from `fit_alignment`, on the training split.
    limit: how many images, evenly spaced over the split, are judged at most.
    seed: of the points drawn for the Chamfer distance.

  Returns:
    [N] per metric of `mesh_errors`, after the category's alignment. Empty where no true mesh is
    known.
  """
  rows = known_shapes(collected, meshes)
  if not rows.size:
    return {}
  errors = []
  for row in rows[spread(rows.size, limit)]:
    predicted = Mesh(alignment.apply(collected.vertices[row]), faces)
    errors.append(mesh_errors(predicted, Mesh(*meshes[collected.shapes[row] or ""]), seed=seed))
  return {name: np.array([e[name] for e in errors]) for name in errors[0]}


def mesh_errors(predicted: Mesh, true: Mesh, *, seed: int) -> dict[str, float]:
  """How far one mesh is from another, in the frame of both.

  Args:
    predicted: one mesh.
    true: the other.
    seed: of the points drawn for the Chamfer distance.

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
  """At most `limit` of `count` rows, evenly spaced."""
  return np.linspace(0, count - 1, min(limit, count)).round().astype(np.int64)


def _box(mesh: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
  """The box of what the faces show; a mesh file may hold vertices that no face uses."""
  vertices, faces = mesh
  return boxes(np.asarray(vertices, np.float64)[np.unique(faces)])
