"""One pass over a split: what was predicted of each image, beside what is known of it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from umr_jax.data.batching import evaluation_batches
from umr_jax.data.dataset import Split
from umr_jax.data.transforms import CropSpec
from umr_jax.eval.inside_out import inside_out
from umr_jax.eval.mask_iou import hard_mask_iou, soft_mask_iou
from umr_jax.geometry import camera
from umr_jax.render import soft_silhouette
from umr_jax.types import Batch, Topology

# (batch, true cameras [B, 7], NaN where unknown) -> vertices [B, V, 3] and cameras [B, 7].
Predict = Callable[[Batch, np.ndarray], tuple[Any, Any]]
# (vertices, cameras, mask [B, H, W]) -> soft and hard mask IoU, share that is inside out, [B] each.
Score = Callable[[Any, Any, Any], tuple[Any, Any, Any]]

# The silhouettes that are compared with masks: the published settings, close to hard ones.
SIGMA = 1e-5
ANTIALIAS = 2


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Collected:
  """The rows of a split's images, N of them; true rows are NaN (shapes None) where unknown."""

  vertices: np.ndarray  # [N, V, 3], predicted
  rotations: np.ndarray  # [N, 3, 3], of the predicted cameras
  mask_iou: np.ndarray  # [N], soft; empty without a score
  mask_iou_hard: np.ndarray  # [N]; empty without a score
  inside_out: np.ndarray  # [N]; empty without a score
  true_rotations: np.ndarray  # [N, 3, 3]
  shapes: list[str | None]  # keys into the data set's meshes

  @property
  def has_camera(self) -> np.ndarray:
    """[N] bool: the images whose true camera is known."""
    return np.isfinite(self.true_rotations).all(axis=(1, 2))


def make_score(topology: Topology, *, image_size: int, sigma: float, antialias: int) -> Score:
  """The mask IoU and the folds of meshes under cameras, as a jitted function.

  Args:
    topology: the faces of the meshes.
    image_size: pixels per side of the render and of the masks.
    sigma: softness of the silhouettes, as in `render.soft_silhouette`.
    antialias: samples per pixel and axis.
  """

  @jax.jit
  def score(
    vertices: Float[Array, "B V 3"], cameras: Float[Array, "B 7"], mask: Float[Array, "B H W"]
  ) -> tuple[Array, Array, Array]:
    faces = camera.project_faces(vertices, cameras, topology.faces)
    alpha = soft_silhouette(faces, image_size=image_size, sigma=sigma, antialias=antialias)
    folds = inside_out(vertices, cameras, topology, image_size=image_size)
    return soft_mask_iou(alpha=alpha, mask=mask), hard_mask_iou(alpha=alpha, mask=mask), folds

  return score


def collect(
  predict: Predict,
  split: Split,
  *,
  score: Score | None,
  batch_size: int,
  image_size: int,
  padding: float,
  limit: int = 0,
) -> Collected:
  """Predicts a split's images, neither mirrored nor jittered, and gathers the rows.

  Args:
    predict: what to judge.
    split: of a data set.
    score: from `make_score`; None leaves the masks out.
    batch_size: images at a time.
    image_size: of the crops.
    padding: of the crops.
    limit: take every so many images only, so that at most this many are seen; 0 for all.

  Raises:
    ValueError: if the split is empty, or a prediction is not finite.
  """
  rows: list[list[np.ndarray]] = []
  shapes: list[str | None] = []
  seen = split.subsample(limit) if limit else split
  for batch, crops in evaluation_batches(
    seen, CropSpec(image_size=image_size, padding=padding), batch_size=batch_size, parts=False
  ):
    valid = np.asarray(batch.valid)
    true = np.full((len(batch.valid), 7), np.nan, np.float32)
    for row, crop in enumerate(crops):
      shapes.append(crop.shape)
      if crop.camera is not None:
        true[row] = crop.camera
    vertices, cameras = predict(batch, true)
    scores = score(vertices, cameras, batch.mask) if score else (true[:, 0],) * 3
    rotations = [_float64(camera.rotation(jax.numpy.asarray(c))) for c in (cameras, true)]
    row_arrays = (_float64(vertices), *rotations, *map(_float64, scores))
    rows.append([array[valid] for array in row_arrays])
  if not rows:
    raise ValueError("there is nothing to evaluate: the split holds no image")
  stacked = [np.concatenate(column) for column in zip(*rows, strict=True)]
  if not np.isfinite(stacked[0]).all():
    raise ValueError("the predicted vertices are not finite; evaluate an earlier checkpoint")
  return Collected(
    vertices=stacked[0],
    rotations=stacked[1],
    true_rotations=stacked[2],
    mask_iou=stacked[3] if score else np.zeros(0),
    mask_iou_hard=stacked[4] if score else np.zeros(0),
    inside_out=stacked[5] if score else np.zeros(0),
    shapes=shapes,
  )


def _float64(array: Any) -> np.ndarray:
  return np.asarray(array).astype(np.float64)
