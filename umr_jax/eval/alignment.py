"""The one similarity per category between the frame that a run learned and that of the truth.

Nothing in the images says which way the learned object frame faces, where its origin lies, or how
long its unit is. One rotation, translation and scale for the whole category, fixed on the training
split, settle that before anything is compared; differences between instances stay.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from umr_jax.types import checked

# The least side of a box, so that a flat mesh has a volume to compare.
_THIN = 1e-9


@dataclasses.dataclass(frozen=True, eq=False)
class Alignment:
  """Takes points of the learned frame to the true one."""

  rotation: np.ndarray  # [3, 3]; turns the TRUE frame into the learned one
  translation: np.ndarray  # [3], before scaling
  scale: float

  def apply(self, vertices: np.ndarray) -> np.ndarray:
    """The points [*B, 3] of the learned frame, in the true one."""
    # Row vectors times G are G^T applied to columns.
    return (vertices @ self.rotation + self.translation) * self.scale


@checked
def global_rotation(
  *, predicted: Float[np.ndarray, "N 3 3"], true: Float[np.ndarray, "N 3 3"]
) -> Float[np.ndarray, "3 3"]:
  """The rotation from the true object frame to the learned one that most cameras agree on.

  Args:
    predicted: rotations of the predicted cameras, from the learned frame to the camera's.
    true: rotations of the true cameras, from the true frame to the camera's.

  Returns:
    The chordal mean of predicted^T true: of all rotations, the one with the least sum of squared
    Frobenius distances to these.

  Source: Hartley et al. 2013, "Rotation Averaging", section 5.3 (chordal L2 mean).
  """
  return chordal_mean(np.einsum("nji,njk->nik", predicted, true))


@checked
def chordal_mean(rotations: Float[np.ndarray, "N 3 3"]) -> Float[np.ndarray, "3 3"]:
  """The rotation nearest to the arithmetic mean of rotation matrices.

  Args:
    rotations: at least one.

  Returns:
    A proper rotation. Where the rotations cancel out, it is an arbitrary one.
  """
  u, _, vt = np.linalg.svd(rotations.sum(axis=0))
  signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))], rotations.dtype)
  return (u * signs) @ vt


@checked
def boxes(vertices: Float[np.ndarray, "*B V 3"]) -> Float[np.ndarray, "*B 2 3"]:
  """The lowest and the highest corner of each mesh's box."""
  return np.stack([vertices.min(axis=-2), vertices.max(axis=-2)], axis=-2)


@checked
def box_similarity(
  *, predicted: Float[np.ndarray, "N 2 3"], true: Float[np.ndarray, "N 2 3"]
) -> tuple[np.ndarray, float]:
  """The translation and scale that make boxes agree, on the mean over a set of shapes.

  Args:
    predicted: boxes of predicted meshes, already turned into the true frame.
    true: boxes of the true meshes.

  Returns:
    Translation [3] and scale: a point v goes to (v + translation) * scale. The scale is the mean
    cube root of the ratio of the boxes' volumes; one shape alone is aligned exactly.

  Source: Goel et al. 2020 (U-CMR), the alignment of their 3D IoU on PASCAL3D+.
    Departs: the true boxes' centres are divided by the scale, which makes no difference for true
    shapes centred at the origin, and keeps those centred elsewhere in place.
  """
  predicted_size, true_size = (
    np.maximum(box[:, 1] - box[:, 0], _THIN) for box in (predicted, true)
  )
  scale = float(np.cbrt(np.prod(true_size / predicted_size, axis=-1)).mean())
  predicted_center, true_center = predicted.mean(axis=1), true.mean(axis=1)
  return (true_center / scale - predicted_center).mean(axis=0), scale
