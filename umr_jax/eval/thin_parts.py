"""Legs, beaks, tails and wing tips: whether what is thin in the masks is covered by the meshes.

A mask IoU hardly tells: thin parts are a few hundredths of a mask's area.
"""

import numpy as np
from jaxtyping import Bool
from skimage import morphology

from umr_jax.data.example import mask_box

# Radius of the disc that does not fit into what is thin, as a share of the longer side of the box.
RADIUS = 0.03


def thin_parts(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
  """The pixels of a mask that no disc inside of it covers: what an opening removes.

  Args:
    mask: a silhouette; the disc's radius is `RADIUS` of its box, and a pixel at least.
  """
  box = mask_box(mask)
  if box is None:
    return np.zeros_like(mask)
  x0, y0, x1, y1 = box
  disc = morphology.disk(max(1, round(RADIUS * max(x1 - x0, y1 - y0))))
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
