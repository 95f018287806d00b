"""What no network is needed for: the numbers that a reconstruction has to beat, and the ceiling."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from umr_jax.data.batching import evaluation_batches
from umr_jax.data.dataset import Dataset
from umr_jax.data.transforms import CropSpec
from umr_jax.eval.alignment import Alignment, box_similarity, boxes
from umr_jax.eval.camera_error import camera_values
from umr_jax.eval.collect import ANTIALIAS, SIGMA
from umr_jax.eval.constant_mask import best_constant_mask, mask_overlap, split_masks
from umr_jax.eval.keypoint_metrics import keypoint_metrics
from umr_jax.eval.landmarks import SILHOUETTE_SIZE, Landmarks, landmarks_by_camera
from umr_jax.eval.mask_iou import hard_mask_iou, soft_mask_iou
from umr_jax.eval.shape_error import mesh_errors, spread
from umr_jax.eval.summary import Report, summarize
from umr_jax.geometry import camera
from umr_jax.geometry.voxels import Mesh, occupancy
from umr_jax.render import soft_silhouette
from umr_jax.types import Topology

# The medoid is sought among at most so many shapes, evenly spaced over the training split's.
_CANDIDATES = 200
_GRID = 32

MeshOf = Callable[[str], Mesh]  # the mesh that stands for a true shape of that name


class _Judged(NamedTuple):
  """Meshes under the true cameras, an entry for each image whose camera and shape are known."""

  shapes: list[str]
  rotations: np.ndarray  # [N, 3, 3]
  soft: np.ndarray  # [N], mask IoU
  hard: np.ndarray  # [N]
  by_camera: Landmarks | None


def references(
  dataset: Dataset,
  *,
  topology: Topology,
  split: str,
  image_size: int,
  padding: float,
  batch_size: int,
  seed: int,
  sigma: float = SIGMA,
  antialias: int = ANTIALIAS,
  max_meshes: int = 100,
) -> dict[str, Report]:
  """The metrics of what is known without learning, by the protocol of `evaluate`.

  Args:
    dataset: as for `evaluate.evaluate`.
    topology: its sphere is taken.
    split: "test" or "train".
    image_size: of crops, masks and renders.
    padding: of the crops.
    batch_size: images at a time.
    seed: of the bootstrap and of the Chamfer points.
    sigma: softness of the silhouettes.
    antialias: samples per pixel and axis of the silhouettes.
    max_meshes: how many images are judged in 3D at most.

  Returns:
    A report for each of "constant mask", the best for the training split; and with true cameras and
    meshes, all under the true camera: "sphere", of the size and place that the category's alignment
    gives it; "medoid", the training shape that overlaps most with the others, on the mean; and
    "truth", whose mask IoU is the most that a weak perspective camera can reach.
  """
  crops: dict[str, Any] = {"batch_size": batch_size, "image_size": image_size, "padding": padding}
  constant = best_constant_mask(split_masks(dataset.splits["train"], **crops))
  overlap = mask_overlap(constant, split_masks(dataset.splits[split], **crops))
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
    found = _under_true_cameras(dataset, split, mesh_of, sigma=sigma, antialias=antialias, **crops)
    if not found.shapes:
      continue
    values = {"mask_iou": found.soft, "mask_iou_hard": found.hard}
    values |= camera_values(predicted=found.rotations, true=found.rotations, alignment=np.eye(3))
    judged = [found.shapes[i] for i in spread(len(found.shapes), max_meshes)]
    errors = [mesh_errors(mesh_of(key), Mesh(*dataset.meshes[key]), seed=seed) for key in judged]
    values |= {metric: np.array([e[metric] for e in errors]) for metric in errors[0]}
    rows[name] = summarize(values, seed=seed)
    if found.by_camera is not None:
      carried = _perfect(found.by_camera) if name == "truth" else found.by_camera
      rows[name] |= keypoint_metrics(
        carried, name="camera", padding=padding, flip=dataset.keypoint_flip, seed=seed
      )
  return rows


def _perfect(landmarks: Landmarks) -> Landmarks:
  """Keypoints that are carried to the target's own: nobody can do better."""
  shape = landmarks.visible.shape
  return landmarks._replace(
    chosen=np.broadcast_to(np.arange(shape[1])[:, None], (*shape, 1)),
    weights=np.ones((*shape, 1)),
    distance=np.zeros(shape),
    positions=landmarks.points,
  )


def _under_true_cameras(
  dataset: Dataset,
  split: str,
  mesh_of: MeshOf,
  *,
  sigma: float,
  antialias: int,
  image_size: int,
  padding: float,
  batch_size: int,
) -> _Judged:
  """Draws the meshes that stand for the shapes, as the true cameras see them."""
  meshes = {key: mesh_of(key) for key in dataset.meshes}
  most = [max(len(mesh[i]) for mesh in meshes.values()) for i in range(2)]

  @jax.jit
  def see(vertices: Any, faces: Any, cameras: Any, mask: Any) -> tuple[jax.Array, ...]:
    projected = camera.project(vertices, cameras)
    corners = jax.vmap(lambda points, triangles: points[triangles])(projected, faces)
    alpha = soft_silhouette(corners, image_size=image_size, sigma=sigma, antialias=antialias)
    large = soft_silhouette(corners, image_size=SILHOUETTE_SIZE)
    scores = soft_mask_iou(alpha=alpha, mask=mask), hard_mask_iou(alpha=alpha, mask=mask)
    return *scores, projected[..., :2], large, camera.rotation(cameras)

  shapes: list[str] = []
  columns: list[list[np.ndarray]] = []
  landmarks: list[Landmarks] = []
  spec = CropSpec(image_size=image_size, padding=padding)
  for batch, cut in evaluation_batches(
    dataset.splits[split], spec, batch_size=batch_size, parts=False
  ):
    known = [
      (i, crop, crop.camera, crop.shape)
      for i, crop in enumerate(cut)
      if crop.camera is not None and crop.shape in meshes
    ]
    if not known:
      continue
    rows = [i for i, *_ in known]
    padded = [_padded(meshes[key], *most) for *_, key in known if key]
    arrays = (np.stack(x) for x in zip(*padded, strict=True))
    cameras = np.stack([view for _, _, view, _ in known])
    seen = see(*arrays, cameras, np.asarray(batch.mask)[rows])
    soft, hard, projected, large, rotations = (np.asarray(x, np.float64) for x in seen)
    columns.append([soft, hard, rotations])
    shapes += [key for *_, key in known if key]
    given = [crop.keypoints for _, crop, _, _ in known]
    if all(points is not None for points in given):
      points = np.stack([p for p in given if p is not None]).astype(np.float64)
      # Rows beyond a mesh's own vertices are not numbers: nothing is near them.
      places = np.where(np.isfinite(projected), projected, 1e6)
      landmarks.append(landmarks_by_camera(points[..., :2], points[..., 2] > 0.5, places, large))
  joined = [np.concatenate(column) for column in zip(*columns, strict=True)] or [np.zeros(0)] * 3
  by_camera = None
  if landmarks:
    by_camera = Landmarks(*(np.concatenate(column) for column in zip(*landmarks, strict=True)))
  return _Judged(shapes, joined[2], joined[0], joined[1], by_camera)


def _padded(mesh: Mesh, vertices: int, faces: int) -> tuple[np.ndarray, np.ndarray]:
  """A mesh with as many rows as the largest: the further faces cannot be drawn."""
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
  """The sphere [V, 3] float32 in the true frame, of the category's mean box volume and centre."""
  true = np.stack([boxes(np.asarray(vertices, np.float64)) for vertices, _ in meshes])
  sphere = np.asarray(topology.sphere, np.float64)
  own = np.broadcast_to(boxes(sphere), true.shape)
  alignment = Alignment(np.eye(3), *box_similarity(predicted=own, true=true))
  return alignment.apply(sphere).astype(np.float32)
