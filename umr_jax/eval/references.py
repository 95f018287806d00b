"""What no network is needed for: the numbers that a reconstruction has to beat, and the ceiling."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from umr_jax.data.batching import evaluation_batches
from umr_jax.data.dataset import Dataset, Split
from umr_jax.eval.camera_error import Alignment, box_similarity, boxes, camera_values
from umr_jax.eval.keypoint_metrics import Transfers, keypoint_metrics, transfer_pairs
from umr_jax.eval.mask_metrics import (
  best_constant_mask,
  hard_mask_iou,
  mask_overlap,
  split_masks,
)
from umr_jax.eval.predictions import Protocol
from umr_jax.eval.shape_error import mesh_errors, spread
from umr_jax.eval.summary import summarize
from umr_jax.geometry import camera
from umr_jax.geometry.voxels import Mesh, occupancy
from umr_jax.losses.mask import soft_iou
from umr_jax.predict.transfer import SILHOUETTE_SIZE, Correspondence
from umr_jax.render import soft_silhouette
from umr_jax.types import Report, Topology

# The medoid is sought among at most this many shapes, evenly spaced over the training split's.
_CANDIDATES = 200
_GRID = 32

MeshOf = Callable[[str], Mesh]  # the mesh that stands for a true shape of that name


class _Measured(NamedTuple):
  """Meshes under the true cameras, an entry for each image whose camera and shape are known."""

  shapes: list[str]
  rotations: np.ndarray  # [N, 3, 3]
  soft: np.ndarray  # [N], mask IoU
  hard: np.ndarray  # [N]
  keypoints: list[np.ndarray | None]  # [K, 3]
  correspondences: list[Correspondence]


class _Known(NamedTuple):
  """An image whose camera and shape are known."""

  row: int  # of its batch
  camera: np.ndarray  # [7]
  shape: str
  keypoints: np.ndarray | None


def references(
  dataset: Dataset, topology: Topology, split: str, protocol: Protocol
) -> dict[str, Report]:
  """The metrics of what is known without learning, by the protocol of `evaluate`.

  Args:
    dataset: as for `evaluate.evaluate`.
    topology: its sphere is taken.
    split: "test" or "train".
    protocol: as for `evaluate.evaluate`.

  Returns:
    A report for each of "constant mask", the best for the training split; and with true cameras and
    meshes, all under the true camera: "sphere", of the size and place that the category's alignment
    gives it; "medoid", the training shape that overlaps most with the others, on the mean; and
    "truth", whose mask IoU is the most that a weak perspective camera can reach.
  """
  spec, seed = protocol.spec, protocol.seed
  train, wanted = (
    split_masks(dataset.splits[name], spec, batch_size=protocol.batch_size)
    for name in ("train", split)
  )
  overlap = mask_overlap(best_constant_mask(train), wanted)
  rows = {"constant mask": summarize({"mask_iou_hard": overlap}, seed=seed)}
  trained = [e.shape for e in dataset.splits["train"] if e.shape in dataset.meshes]
  if not trained:
    return rows
  sphere = Mesh(
    fitted_sphere(topology, [dataset.meshes[key] for key in trained if key]),
    topology.outward_faces,
  )
  medoid = Mesh(*dataset.meshes[medoid_shape(dataset.meshes, sorted({k for k in trained if k}))])
  stands_for: dict[str, MeshOf] = {
    "sphere": lambda _: sphere,
    "medoid": lambda _: medoid,
    "truth": lambda key: Mesh(*dataset.meshes[key]),
  }
  for name, mesh_of in stands_for.items():
    found = _under_true_cameras(dataset.splits[split], dataset.meshes, mesh_of, protocol)
    if not found.shapes:
      continue
    values = {"mask_iou": found.soft, "mask_iou_hard": found.hard}
    values |= camera_values(predicted=found.rotations, true=found.rotations, alignment=np.eye(3))
    measured = [found.shapes[i] for i in spread(len(found.shapes), protocol.max_meshes)]
    errors = [mesh_errors(mesh_of(key), Mesh(*dataset.meshes[key]), seed=seed) for key in measured]
    values |= {metric: np.array([e[metric] for e in errors]) for metric in errors[0]}
    rows[name] = summarize(values, seed=seed)
    keypoints = [points for points in found.keypoints if points is not None]
    if len(keypoints) == len(found.shapes):
      transfers = transfer_pairs(np.stack(keypoints), found.correspondences, "camera")
      rows[name] |= keypoint_metrics(
        _perfect(transfers) if name == "truth" else transfers,
        name="camera",
        padding=spec.padding,
        flip=dataset.keypoint_flip,
        seed=seed,
      )
  return rows


def _perfect(transfers: Transfers) -> Transfers:
  """Keypoints that are carried to the target's own: nobody can do better."""
  errors = np.zeros_like(transfers.errors)
  return transfers._replace(errors=errors, confidence=np.ones_like(errors))


def _under_true_cameras(
  split: Split, shapes: Mapping[str, tuple[np.ndarray, np.ndarray]], mesh_of: MeshOf, how: Protocol
) -> _Measured:
  """Renders the meshes that represent the shapes under the true cameras."""
  meshes = {key: mesh_of(key) for key in shapes}
  most = max(len(m.vertices) for m in meshes.values()), max(len(m.faces) for m in meshes.values())
  render = _make_render(how)
  result = _Measured([], np.zeros((0, 3, 3)), np.zeros(0), np.zeros(0), [], [])
  for batch, crops in evaluation_batches(split, how.spec, batch_size=how.batch_size, parts=False):
    known = [
      _Known(row, crop.camera, crop.shape, crop.keypoints)
      for row, crop in enumerate(crops)
      if crop.camera is not None and crop.shape is not None and crop.shape in meshes
    ]
    if not known:
      continue
    vertices, faces = (
      np.stack(x) for x in zip(*(_padded(meshes[one.shape], *most) for one in known), strict=True)
    )
    cameras = np.stack([one.camera for one in known])
    masks = np.asarray(batch.mask)[[one.row for one in known]]
    soft, hard, projected, covered, rotations = map(
      np.asarray, render(vertices, faces, cameras, masks)
    )
    result = _Measured(
      result.shapes + [one.shape for one in known],
      np.concatenate([result.rotations, rotations]),
      np.concatenate([result.soft, soft]),
      np.concatenate([result.hard, hard]),
      result.keypoints + [one.keypoints for one in known],
      result.correspondences
      + [_correspondence(*row) for row in zip(projected, covered, faces, strict=True)],
    )
  return result


def _make_render(how: Protocol) -> Callable[..., tuple[Array, ...]]:
  size = how.spec.image_size

  @jax.jit
  def render(vertices: Array, faces: Array, cameras: Array, masks: Array) -> tuple[Array, ...]:
    projected = camera.project(vertices, cameras)
    corners = jax.vmap(lambda points, triangles: points[triangles])(projected, faces)
    alpha = soft_silhouette(corners, image_size=size, sigma=how.sigma, antialias=how.antialias)
    covered = soft_silhouette(corners, image_size=SILHOUETTE_SIZE) > 0.0
    scores = soft_iou(alpha=alpha, mask=masks), hard_mask_iou(alpha=alpha, mask=masks)
    return *scores, projected, covered, camera.rotation(cameras)

  return render


def _correspondence(
  projected: np.ndarray, covered: np.ndarray, faces: np.ndarray
) -> Correspondence:
  # Rows beyond a mesh's own vertices are not numbers: nothing is near them.
  places = np.where(np.isfinite(projected), projected, 1e6).astype(np.float64)
  return Correspondence(
    template=places, vertices=places, faces=faces, covered=np.packbits(covered, axis=-1)
  )


def _padded(mesh: Mesh, vertices: int, faces: int) -> tuple[np.ndarray, np.ndarray]:
  """A mesh with as many rows as the largest: the further faces are never rendered."""
  rows = np.full((vertices + 1, 3), np.nan, np.float32)
  rows[: len(mesh.vertices)] = mesh.vertices
  triangles = np.full((faces, 3), vertices, np.int32)
  triangles[: len(mesh.faces)] = mesh.faces
  return rows, triangles


def medoid_shape(meshes: dict[str, tuple[np.ndarray, np.ndarray]], keys: list[str]) -> str:
  """The shape that overlaps most with the others, on the mean, as solids on one grid for all.

  Args:
    meshes: by name, all in one frame.
    keys: the candidates.
  """
  keys = [keys[i] for i in spread(len(keys), _CANDIDATES)]
  limits = boxes(np.stack([boxes(meshes[key][0]) for key in keys]).reshape(-1, 3)[None])[0]
  voxel = float((limits[1] - limits[0]).max()) / (_GRID - 2)
  origin = limits.mean(axis=0) - voxel * _GRID / 2.0
  solids = np.stack(
    [
      occupancy(Mesh(*meshes[key]), origin=origin, voxel=voxel, resolution=_GRID).reshape(-1)
      for key in keys
    ]
  ).astype(np.float32)
  shared = solids @ solids.T
  size = np.diag(shared)
  overlap = shared / (size[:, None] + size[None] - shared)
  return keys[int(np.argmax(overlap.mean(axis=1)))]


def fitted_sphere(topology: Topology, meshes: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
  """The sphere [V, 3] float32 in the true frame, of the category's mean box volume and centre.

  Args:
    topology: its sphere is taken.
    meshes: the true ones, one for each training image.
  """
  true = np.stack([boxes(np.asarray(vertices, np.float64)) for vertices, _ in meshes])
  sphere = np.asarray(topology.sphere, np.float64)
  own = np.broadcast_to(boxes(sphere), true.shape)
  alignment = Alignment(np.eye(3), *box_similarity(predicted=own, true=true))
  return alignment.apply(sphere).astype(np.float32)
