"""How well the canonical part map, drawn on each reconstruction, meets the images' true parts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int
from scipy.optimize import linear_sum_assignment

from umr_jax.data.batching import evaluation_batches
from umr_jax.data.dataset import Split
from umr_jax.data.transforms import CropSpec
from umr_jax.geometry import camera
from umr_jax.models.assemble import uv_parts_to_texels
from umr_jax.render import soft_rasterize
from umr_jax.types import Template, Topology, checked

# Training images that settle which canonical part is which true one.
_MATCHED = 200


def part_ious(
  infer: Callable[..., Any],
  params: Any,
  batch_stats: Any,
  template: Template,
  canonical_uv: jax.Array | np.ndarray,
  *,
  train: Split,
  split: Split,
  topology: Topology,
  batch_size: int,
  image_size: int,
  padding: float,
) -> np.ndarray:
  """Part IoU of each image of a split whose parts are known.

  Canonical parts have no names: each is matched with at most one true part, so that the overlap
  over training images is largest.

  Args:
    infer: from `models.infer.make_infer`, not jitted.
    params: of the network; unreplicated.
    batch_stats: likewise.
    template: the category's mean shape.
    canonical_uv: [Hu, Wu, P + 1], background first.
    train: the split that the matching is fixed on.
    split: the images to judge.
    topology: of the meshes.
    batch_size: images at a time.
    image_size: of crops and renders.
    padding: of the crops.

  Returns:
    [N], the mean over an image's true parts; empty where no image has parts.
  """
  texels = uv_parts_to_texels(jnp.asarray(canonical_uv), topology)
  spec = CropSpec(image_size=image_size, padding=padding)

  @jax.jit
  def label(images: jax.Array) -> jax.Array:
    found = infer(params, batch_stats, template, images)
    corners = camera.project_faces(found.vertices, found.camera, topology.faces)
    painted = jnp.broadcast_to(texels, (len(images), *texels.shape))
    seen = soft_rasterize(corners, painted, image_size=image_size, aggr_rgb="hard")
    parts = 1 + jnp.argmax(seen[..., 1:-1], axis=-1)
    return jnp.where(seen[..., -1] > 0.5, parts, 0)

  learned = list(_labels(label, train.subsample(_MATCHED), spec, batch_size))
  judged = list(_labels(label, split, spec, batch_size))
  if not learned or not judged:
    return np.zeros(0)
  parts = max(int(max(a.max(), b.max())) for a, b in [*learned, *judged])
  match = match_parts(*(np.stack(column) for column in zip(*learned, strict=True)), parts=parts)
  return np.array([mean_part_iou(match[found], true) for found, true in judged])


def _labels(label: Callable[..., Any], split: Split, spec: CropSpec, batch_size: int) -> Any:
  """(found [S, S], true [S, S]) of the images whose parts are known."""
  for batch, cut in evaluation_batches(split, spec, batch_size=batch_size):
    known = [
      (i, crop.parts) for i, crop in enumerate(cut) if crop.parts is not None and crop.parts.any()
    ]
    if known:
      found = np.asarray(label(batch.image))
      for i, parts in known:
        yield found[i], np.argmax(parts, axis=-1)


@checked
def match_parts(
  found: Int[np.ndarray, "N S S"], true: Int[np.ndarray, "N S S"], *, parts: int
) -> Int[np.ndarray, "P1"]:
  """For each canonical part the true one that it stands for; 0, background, for the background.

  Args:
    found: labels from 0, background, to `parts`.
    true: likewise.
    parts: P.
  """
  both = np.bincount((found * (parts + 1) + true).ravel(), minlength=(parts + 1) ** 2)
  both = both.reshape(parts + 1, parts + 1).astype(np.float64)
  union = both.sum(axis=1, keepdims=True) + both.sum(axis=0, keepdims=True) - both
  overlap = both / np.maximum(union, 1.0)
  rows, columns = linear_sum_assignment(-overlap[1:, 1:])
  match = np.zeros(parts + 1, np.int64)
  match[rows + 1] = columns + 1
  return match


@checked
def mean_part_iou(found: Int[np.ndarray, "S S"], true: Int[np.ndarray, "S S"]) -> float:
  """The mean IoU over the parts that an image truly shows; 0 where it shows none."""
  shown = [part for part in np.unique(true) if part > 0]
  ious = [
    np.count_nonzero((found == part) & (true == part))
    / np.count_nonzero((found == part) | (true == part))
    for part in shown
  ]
  return float(np.mean(ious)) if ious else 0.0
