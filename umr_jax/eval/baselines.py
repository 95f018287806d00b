"""What no network is needed for: the numbers that a reconstruction has to beat."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from umr_jax.data.batching import evaluation_batches
from umr_jax.data.dataset import Dataset
from umr_jax.eval.alignment import Alignment, box_similarity, boxes
from umr_jax.eval.collect import ANTIALIAS, SIGMA, collect, make_score
from umr_jax.eval.evaluate import Report, summarize
from umr_jax.eval.shape_error import shape_errors
from umr_jax.types import Batch, Topology, checked


def baselines(
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
) -> Report:
  """The metrics of a constant mask and, with 3D truth, of a sphere, by the same protocol.

  The sphere stands in place of every predicted mesh. Its size and place are those that the
  category's alignment gives it (mean box volume and centre over the training split), and it is
  seen by the true camera.

  Args:
    dataset: as for `evaluate.evaluate`.
    topology: its sphere is taken.
    split: "test" or "train".
    image_size: of crops, masks and renders.
    padding: of the crops.
    batch_size: images at a time.
    seed: of the bootstrap and of the Chamfer points.
    sigma: softness of the silhouettes, whatever it was in training.
    antialias: samples per pixel and axis of the silhouettes.
    max_meshes: how many images are judged in 3D at most.

  Returns:
    `constant_mask_iou`, `sphere_mask_iou`, `sphere_mask_iou_hard`, `sphere_iou_3d`,
    `sphere_iou_3d_instance` and `sphere_chamfer_l1` as far as the data allow, each with its `_ci`.
  """
  crops: dict[str, Any] = {"batch_size": batch_size, "image_size": image_size, "padding": padding}
  constant = best_constant_mask(_masks(dataset.splits["train"], **crops))
  values = {"constant_mask_iou": _mask_overlap(constant, _masks(dataset.splits[split], **crops))}

  shapes = [example.shape for example in dataset.splits["train"]]
  keys = [key for key in shapes if key is not None and key in dataset.meshes]
  if keys:
    sphere = _fitted_sphere(topology, [dataset.meshes[key] for key in keys])

    def predict(batch: Batch, true_cameras: np.ndarray) -> tuple[Any, Any]:
      spheres = np.broadcast_to(sphere, (len(batch.valid), *sphere.shape))
      return jnp.asarray(spheres), jnp.asarray(true_cameras)

    score = make_score(topology, image_size=image_size, sigma=sigma, antialias=antialias)
    judged = collect(predict, dataset.splits[split], score=score, **crops)
    if judged.has_camera.any():
      values["sphere_mask_iou"] = judged.mask_iou[judged.has_camera]
      values["sphere_mask_iou_hard"] = judged.mask_iou_hard[judged.has_camera]
    in_place = Alignment(np.eye(3), np.zeros(3), 1.0)
    errors = shape_errors(
      judged, topology.outward_faces, dataset.meshes, in_place, limit=max_meshes, seed=seed
    )
    values |= {f"sphere_{name}": column for name, column in errors.items()}
  return summarize(values, seed=seed)


@checked
def best_constant_mask(masks: Float[np.ndarray, "N H W"]) -> Float[np.ndarray, "H W"]:
  """The one mask that overlaps best with a set of masks, on the mean.

  Args:
    masks: binarised at a half; usually those of the training split.

  Returns:
    The best of the mean mask's level sets, of 0 and 1.
  """
  mean = (masks > 0.5).astype(np.float32).mean(axis=0)
  candidates = [(mean > level).astype(np.float32) for level in np.linspace(0.0, 0.95, 39)]
  means = [_mask_overlap(candidate, masks).mean() for candidate in candidates]
  return candidates[int(np.argmax(means))]


def _mask_overlap(constant: np.ndarray, masks: np.ndarray) -> np.ndarray:
  """Hard IoU [N] of one mask with many."""
  a, b = constant > 0.5, masks > 0.5
  union = np.count_nonzero(a | b, axis=(1, 2))
  return np.count_nonzero(a & b, axis=(1, 2)) / np.maximum(union, 1)


def _masks(split: Any, *, batch_size: int, image_size: int, padding: float) -> np.ndarray:
  batches = evaluation_batches(split, batch_size=batch_size, image_size=image_size, padding=padding)
  return np.concatenate([np.asarray(batch.mask)[np.asarray(batch.valid)] for batch, _ in batches])


def _fitted_sphere(topology: Topology, meshes: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
  """The sphere [V, 3] float32 in the true frame, where the true cameras see it."""
  true = np.stack([boxes(np.asarray(vertices, np.float64)) for vertices, _ in meshes])
  sphere = np.asarray(topology.sphere, np.float64)
  own = np.broadcast_to(boxes(sphere), true.shape)
  alignment = Alignment(np.eye(3), *box_similarity(predicted=own, true=true))
  return alignment.apply(sphere).astype(np.float32)
