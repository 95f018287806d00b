"""Every metric that a data set's annotations allow, with intervals: the content of a report."""

from typing import Any

import jax
import numpy as np

from umr_jax.data.dataset import Dataset
from umr_jax.eval.camera_error import camera_values
from umr_jax.eval.collect import ANTIALIAS, SIGMA, collect, make_score
from umr_jax.eval.collect_landmarks import collect_landmarks
from umr_jax.eval.keypoint_metrics import PAIRS, keypoint_metrics
from umr_jax.eval.part_iou import part_ious
from umr_jax.eval.shape_error import GRID, fit_alignment, shape_errors
from umr_jax.eval.summary import Report, summarize
from umr_jax.models.infer import Infer
from umr_jax.models.infer import infer as infer_once
from umr_jax.types import Batch, Model


def evaluate(
  model: Model,
  dataset: Dataset,
  *,
  split: str,
  image_size: int,
  padding: float,
  batch_size: int,
  seed: int,
  step: int,
  infer: Infer = infer_once,
  sigma: float = SIGMA,
  antialias: int = ANTIALIAS,
  alignment_images: int = 600,
  max_meshes: int = 100,
) -> Report:
  """Judges a network on one split.

  Each image is cropped by its mask's box, not mirrored, and reconstructed with the mean code and
  the most probable camera. What ties the learned object frame to the true one is fixed on the
  training split first.

  Args:
    model: to evaluate.
    dataset: with or without true cameras and meshes.
    split: "test" or "train".
    image_size: of crops, masks and renders.
    padding: of the crops, as a share of the box.
    batch_size: images at a time.
    seed: of the bootstrap and of the Chamfer points.
    step: the gradient step that the parameters come from; it is only reported.
    infer: how the model reconstructs; not jitted.
    sigma: softness of the silhouettes, whatever it was in training.
    antialias: samples per pixel and axis of the silhouettes.
    alignment_images: at most how many training images, evenly spaced, fix the alignment.
    max_meshes: how many images are judged in 3D at most.

  Returns:
    `mask_iou`, `mask_iou_hard` and `inside_out` (means); with true cameras `camera_error_deg` and
    `camera_error_twin_deg` (medians), `camera_within_30` and `camera_within_30_twin` (shares); with
    true meshes too what `mesh_errors` says (means); with true parts and a canonical map `part_iou`
    (mean); with keypoints what `keypoint_metrics` says of
    each way of carrying them. Each KEY has `KEY_ci`, its 95% interval; further `split`, `n`,
    `seed`, `step` and `protocol`.

  Raises:
    ValueError: for a split that the data set does not have, or predictions that are not finite.

  Source: Li et al. 2020, section 4.2 (mask IoU), in the soft form of the released evaluation. The
    measures in 3D are this project's own: the paper has no 3D truth.
  """
  reconstruct, topology = jax.jit(infer), model.topology

  def predict(batch: Batch, _: np.ndarray) -> tuple[Any, Any]:
    inferred = reconstruct(model, batch.image)
    return inferred.vertices, inferred.camera

  crops: dict[str, Any] = {"batch_size": batch_size, "image_size": image_size, "padding": padding}
  score = make_score(topology, image_size=image_size, sigma=sigma, antialias=antialias)
  judged = collect(predict, _split(dataset, split), score=score, **crops)
  values = {
    "mask_iou": judged.mask_iou,
    "mask_iou_hard": judged.mask_iou_hard,
    "inside_out": judged.inside_out,
  }
  seen = judged.has_camera
  shapes = [key for key in judged.shapes if key in dataset.meshes]
  if seen.any() or shapes:
    training = collect(
      predict, _split(dataset, "train"), score=None, limit=alignment_images, **crops
    )
    alignment = fit_alignment(training, dataset.meshes)
    if alignment is not None and seen.any():
      values |= camera_values(
        predicted=judged.rotations[seen],
        true=judged.true_rotations[seen],
        alignment=alignment.rotation,
      )
    if alignment is not None:
      values |= shape_errors(
        judged, topology.outward_faces, dataset.meshes, alignment, limit=max_meshes, seed=seed
      )
  if model.canonical_uv is not None:
    ious = part_ious(
      infer, model, train=_split(dataset, "train"), split=_split(dataset, split), **crops
    )
    values |= {"part_iou": ious} if ious.size else {}
  report = summarize(values, seed=seed)
  carried = collect_landmarks(infer, model, _split(dataset, split), **crops)
  for name, landmarks in carried.items():
    report |= keypoint_metrics(
      landmarks, name=name, padding=padding, flip=dataset.keypoint_flip, seed=seed
    )
  protocol = (
    f"crops by mask box + {padding:g} a side at {image_size} px, not mirrored; mean code, most "
    f"probable camera; silhouettes with sigma {sigma:g}, antialias {antialias}; cameras and shapes "
    f"after one similarity per category fixed on the training split; {len(shapes)} images with "
    f"true meshes, of which at most {max_meshes} as solids on a {GRID}^3 grid"
  )
  if carried:
    protocol += (
      f"; keypoints over {PAIRS} random pairs in both directions, where both images show them, "
      "errors over the box's longer side (csm: the crop's), mean over keypoints"
    )
  return report | {
    "split": split,
    "n": len(judged.shapes),
    "seed": seed,
    "step": step,
    "protocol": protocol,
  }


def _split(dataset: Dataset, name: str) -> Any:
  if name not in dataset.splits or not len(dataset.splits[name]):
    raise ValueError(
      f"data set {dataset.name} has no images in split {name!r}; it has "
      + ", ".join(f"{key} ({len(value)})" for key, value in dataset.splits.items())
    )
  return dataset.splits[name]
