"""How well silhouettes cover the images' masks, and what is thin in them; folds of the mesh.

A mask IoU hardly tells whether legs, beaks, tails and wing tips are covered: thin parts are a few
hundredths of a mask's area.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from skimage import morphology

from umr_jax.data.batching import evaluation_batches
from umr_jax.data.dataset import Split
from umr_jax.data.example import mask_box
from umr_jax.data.transforms import CropSpec
from umr_jax.geometry import camera
from umr_jax.losses.mask import soft_iou
from umr_jax.render import rasterize
from umr_jax.types import Topology, checked

# Radius of the disc that does not fit into what is thin, as a share of the longer side of the box.
_THIN_RADIUS = 0.03


@checked
def hard_mask_iou(
  *, alpha: Float[Array, "*B H W"], mask: Float[Array, "*B H W"]
) -> Float[Array, "*B"]:
  """Intersection over union of the two silhouettes, each taken where its coverage is above half.

  Args:
    alpha: rendered coverage, in [0, 1].
    mask: the image's silhouette, in [0, 1].

  Returns:
    One value per image; 1 for equal silhouettes and 0 where both are empty.
  """
  return soft_iou(alpha=(alpha > 0.5).astype(jnp.float32), mask=(mask > 0.5).astype(jnp.float32))


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
  means = [mask_overlap(candidate, masks).mean() for candidate in candidates]
  return candidates[int(np.argmax(means))]


def mask_overlap(constant: np.ndarray, masks: np.ndarray) -> np.ndarray:
  """Hard IoU [N] of one mask with many.

  Args:
    constant: [H, W].
    masks: [N, H, W].
  """
  a, b = constant > 0.5, masks > 0.5
  union = np.count_nonzero(a | b, axis=(1, 2))
  return np.count_nonzero(a & b, axis=(1, 2)) / np.maximum(union, 1)


def split_masks(split: Split, spec: CropSpec, *, batch_size: int) -> np.ndarray:
  """The masks [N, S, S] of a split's crops.

  Args:
    split: of a data set.
    spec: of the crops.
    batch_size: images at a time.
  """
  batches = evaluation_batches(split, spec, batch_size=batch_size, parts=False)
  return np.concatenate([np.asarray(batch.mask)[np.asarray(batch.valid)] for batch, _ in batches])


def thin_parts(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
  """The pixels of a mask that no disc inside of it covers: what an opening removes.

  Args:
    mask: a silhouette; the disc's radius is `_THIN_RADIUS` of its box, and a pixel at least.
  """
  box = mask_box(mask)
  if box is None:
    return np.zeros_like(mask)
  x0, y0, x1, y1 = box
  disc = morphology.disk(max(1, round(_THIN_RADIUS * max(x1 - x0, y1 - y0))))
  # What the frame cuts off is no edge of the object's.
  margin = len(disc)
  opened = morphology.opening(np.pad(mask, margin, mode="edge"), disc)
  return mask & ~opened[margin:-margin, margin:-margin]


def thin_scores(
  covered: Bool[np.ndarray, "N H W"], masks: Bool[np.ndarray, "N H W"]
) -> dict[str, np.ndarray]:
  """How well meshes cover the thin parts of masks.

  Args:
    covered: where each image's mesh is rendered.
    masks: the images' silhouettes.

  Returns:
    `thin_recall`, the share of the thin pixels of each mask that the mesh covers, of the images
    that have any; `thin_precision`, the share of the thin pixels of each rendered silhouette that
    lie in the mask, likewise.
  """
  return {
    "thin_recall": _shares(masks, covered),
    "thin_precision": _shares(covered, masks),
  }


def _shares(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
  """The share of what is thin in each of the first that lies in the second, where there is any."""
  pairs = [(thin_parts(one), other) for one, other in zip(outer, inner, strict=True)]
  return np.array([other[thin].mean() for thin, other in pairs if thin.any()])


@checked
def backface_ratio(
  vertices: Float[Array, "B V 3"],
  cameras: Float[Array, "B 7"],
  topology: Topology,
  *,
  image_size: int,
) -> Float[Array, "B"]:
  """How much of a mesh shows its inside: the visible share, from both sides, that is a back face.

  No silhouette tells that a mesh folds through itself.

  Args:
    vertices: every image's mesh, in object space.
    cameras: one of each image.
    topology: of the meshes.
    image_size: pixels per side of the renders.

  Returns:
    One value per image: 0 for every closed surface that does not fold through itself, and where
    nothing is visible; 1 for one that is turned inside out.
  """
  inside, visible = jnp.zeros(len(vertices)), jnp.zeros(len(vertices))
  for view in (cameras, camera.rotate_view(cameras, 180.0)):
    faces = camera.project_faces(vertices, view, topology.outward_faces)
    blank = jnp.zeros((*faces.shape[:2], 1, 1))
    fragments = rasterize(faces, blank, image_size=image_size, aggr_rgb="hard")
    nearest = fragments.face_ids.reshape(len(vertices), -1)
    depth = camera.facing_away(vertices, view, topology.outward_faces)
    away = jnp.take_along_axis(depth, jnp.maximum(nearest, 0), axis=1) > 0.0
    covered = nearest >= 0
    inside += jnp.sum(covered & away, axis=1, dtype=inside.dtype)
    visible += jnp.sum(covered, axis=1, dtype=visible.dtype)
  return inside / jnp.maximum(visible, 1.0)
