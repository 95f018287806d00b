"""Every metric that a data set's annotations allow, with intervals: the content of a report."""

from typing import NamedTuple

import jax
import numpy as np

from umr_jax.data.dataset import Dataset, Split
from umr_jax.eval.camera_error import camera_values
from umr_jax.eval.keypoint_metrics import PAIRS, keypoint_metrics, transfer_pairs
from umr_jax.eval.mask_metrics import thin_scores
from umr_jax.eval.part_quality import part_ious
from umr_jax.eval.predictions import Predictions, Protocol, predict_split
from umr_jax.eval.shape_error import GRID, fit_alignment, shape_errors
from umr_jax.eval.summary import summarize
from umr_jax.eval.view_coverage import view_coverage, view_regions
from umr_jax.models.infer import Infer
from umr_jax.models.infer import infer as infer_once
from umr_jax.predict.transfer import METHODS
from umr_jax.types import Model, Report


class Evaluation(NamedTuple):
  """What was measured, and the predictions that it was measured on."""

  report: Report
  predictions: Predictions


def evaluate(
  model: Model,
  dataset: Dataset,
  split: str,
  protocol: Protocol,
  *,
  step: int,
  infer: Infer = infer_once,
) -> Evaluation:
  """Evaluates a model on one split: predicts it once, then measures.

  Each image is cropped by its mask's box, not mirrored, and reconstructed with the mean code and
  the most probable camera. What ties the learned object frame to the true one, and canonical parts
  to true ones, is fixed on the training split first.

  Args:
    model: to evaluate.
    dataset: with or without true cameras, meshes, keypoints and parts.
    split: "test" or "train".
    protocol: how.
    step: the gradient step that the parameters come from; it is only reported.
    infer: how the model reconstructs; not jitted.

  Returns:
    The predictions, and the report: `mask_iou`, `mask_iou_hard`, `backface_ratio` and those of
    `thin_scores` (means); with true cameras `camera_error_deg` and `camera_error_twin_deg`
    (medians), `camera_within_30` and `camera_within_30_twin` (shares); with true meshes too those
    of `mesh_errors` (means); with true parts and a canonical map `part_iou` (mean); with keypoints
    those of `keypoint_metrics` for each way of transfer. With a posterior over views `view_region`
    (mean), and with true cameras `view_coverage` (share); see `eval.view_coverage`.
    Each KEY has `KEY_ci`, its 95% interval; further `split`, `n`, `seed`, `step` and `protocol`.

  Raises:
    ValueError: for a split that the data set does not have, or predictions that are not finite.

  Source: Li et al. 2020, section 4.2 (mask IoU), in the soft form of the released evaluation. The
    measures in 3D are this project's own: the paper has no 3D truth.
  """
  infer = jax.jit(infer)
  predictions = predict_split(model, _split(dataset, split), protocol, infer=infer)
  values = {
    "mask_iou": predictions.mask_iou,
    "mask_iou_hard": predictions.mask_iou_hard,
    "backface_ratio": predictions.backface_ratio,
    **_thin_scores(predictions, protocol.spec.image_size),
    **view_regions(predictions),
  }
  shapes = [key for key in predictions.shapes if key in dataset.meshes]
  parts = any(pair is not None for pair in predictions.parts)
  if predictions.has_camera.any() or shapes or parts:
    if split == "train":
      training = predictions.subsample(protocol.alignment_images)
    else:
      some = _split(dataset, "train").subsample(protocol.alignment_images)
      training = predict_split(model, some, protocol, infer=infer, observed=False)
    values |= _against_truth(predictions, training, dataset, protocol, model)
  carried = _keypoint_report(predictions, dataset, protocol)
  report = {
    **summarize(values, seed=protocol.seed),
    **carried,
    "split": split,
    "n": len(predictions.shapes),
    "seed": protocol.seed,
    "step": step,
    "protocol": _description(protocol, meshes=len(shapes), keypoints=bool(carried)),
  }
  return Evaluation(report, predictions)


def _thin_scores(predictions: Predictions, size: int) -> dict[str, np.ndarray]:
  """`thin_scores` of the images; without what no image has."""
  kept = [pair for pair in predictions.silhouettes if pair is not None]
  both = np.unpackbits(np.array(kept), axis=-1, count=size).astype(bool)
  scores = thin_scores(both[:, 0], both[:, 1])
  return {name: values for name, values in scores.items() if values.size}


def _against_truth(
  predictions: Predictions,
  training: Predictions,
  dataset: Dataset,
  protocol: Protocol,
  model: Model,
) -> dict[str, np.ndarray]:
  """The measures by true cameras, meshes and parts, image by image."""
  values: dict[str, np.ndarray] = {}
  alignment = fit_alignment(training, dataset.meshes)
  known = predictions.has_camera
  if alignment is not None and known.any():
    values |= camera_values(
      predicted=predictions.rotations[known],
      true=predictions.true_rotations[known],
      alignment=alignment.rotation,
    )
    values |= view_coverage(predictions, model.view_template, alignment.rotation)
  if alignment is not None:
    values |= shape_errors(
      predictions,
      model.topology.outward_faces,
      dataset.meshes,
      alignment,
      limit=protocol.max_meshes,
      seed=protocol.seed,
    )
  ious = part_ious(training.parts, predictions.parts)
  return values | ({"part_iou": ious} if ious.size else {})


def _keypoint_report(predictions: Predictions, dataset: Dataset, protocol: Protocol) -> Report:
  """PCK and APK by each method; empty where no keypoint is visible."""
  known = [
    (points, own)
    for points, own in zip(predictions.keypoints, predictions.correspondences, strict=True)
    if points is not None and own is not None
  ]
  report: Report = {}
  if not any((points[:, 2] > 0.5).any() for points, _ in known):
    return report
  keypoints, correspondences = np.stack([points for points, _ in known]), [own for _, own in known]
  for method in METHODS:
    report |= keypoint_metrics(
      transfer_pairs(keypoints, correspondences, method),
      name=method,
      padding=protocol.spec.padding,
      flip=dataset.keypoint_flip,
      seed=protocol.seed,
    )
  return report


def _description(protocol: Protocol, *, meshes: int, keypoints: bool) -> str:
  spec = protocol.spec
  text = (
    f"crops by mask box + {spec.padding:g} a side at {spec.image_size} px, not mirrored; mean "
    f"code, most probable camera; silhouettes with sigma {protocol.sigma:g}, antialias "
    f"{protocol.antialias}; cameras and shapes after one similarity per category fixed on the "
    f"training split; {meshes} images with true meshes, of which at most {protocol.max_meshes} as "
    f"solids on a {GRID}^3 grid"
  )
  if keypoints:
    text += (
      f"; keypoints over {PAIRS} random pairs in both directions, where both images show them, "
      "errors over the box's longer side (csm: the crop's), mean over keypoints"
    )
  return text


def _split(dataset: Dataset, name: str) -> Split:
  if name not in dataset.splits or not len(dataset.splits[name]):
    raise ValueError(
      f"data set {dataset.name} has no images in split {name!r}; it has "
      + ", ".join(f"{key} ({len(value)})" for key, value in dataset.splits.items())
    )
  return dataset.splits[name]
