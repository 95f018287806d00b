"""How far predicted viewpoints are from the true ones, and the frame in which both are compared.

Nothing in the images determines which way the learned object frame faces, its origin, or how
long its unit is. One rotation, translation and scale for the whole category, fixed on the training
split, settle that before anything is compared; differences between instances stay.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from umr_jax.types import checked

NEAR_DEG = 30.0
# The least side of a box, so that a flat mesh has a volume to compare.
_THIN = 1e-9


@checked
def camera_errors(
  *,
  predicted: Float[np.ndarray, "N 3 3"],
  true: Float[np.ndarray, "N 3 3"],
  alignment: Float[np.ndarray, "3 3"],
) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
  """Rotation errors of cameras, as they are and modulo the depth-reversal twin.

  Under weak perspective a left-right symmetric object has the same silhouette from two viewpoints,
  a camera and its twin (`twin_rotations`). An error near 90 degrees may be one that silhouettes
  do not show: the second number excludes exactly that.

  Args:
    predicted: rotations from the learned object frame to the camera's.
    true: rotations from the true object frame to the camera's.
    alignment: the category's rotation from the true frame to the learned one
      (`global_rotation`).

  Returns:
    For each image the angle between predicted and true camera, in degrees, and the smaller of this
    and the angle between the predicted camera's twin and the true camera.
  """
  plain = angles_deg(predicted @ alignment, true)
  twin = angles_deg(twin_rotations(predicted) @ alignment, true)
  return plain, np.minimum(plain, twin)


def camera_values(
  *, predicted: np.ndarray, true: np.ndarray, alignment: np.ndarray
) -> dict[str, np.ndarray]:
  """`camera_errors` as a report has them, and whether they are below `NEAR_DEG`; [N] each.

  Args:
    predicted: as for `camera_errors`.
    true: likewise.
    alignment: likewise.
  """
  plain, twin = camera_errors(predicted=predicted, true=true, alignment=alignment)
  return {
    "camera_error_deg": plain,
    "camera_error_twin_deg": twin,
    "camera_within_30": (plain < NEAR_DEG).astype(np.float64),
    "camera_within_30_twin": (twin < NEAR_DEG).astype(np.float64),
  }


@checked
def twin_rotations(rotations: Float[np.ndarray, "*B 3 3"]) -> Float[np.ndarray, "*B 3 3"]:
  """D R M, with the depth reversal D = diag(1, 1, -1) and the mirror plane M = diag(1, -1, 1).

  Args:
    rotations: from object space, where y = 0 is the mirror plane, to the camera's frame.

  Returns:
    The twins, whose twins are the rotations again.
  """
  # The product of the signs of row and column.
  signs = np.array([[1.0, -1.0, 1.0], [1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]], rotations.dtype)
  return rotations * signs


@checked
def angles_deg(
  a: Float[np.ndarray, "*B 3 3"], b: Float[np.ndarray, "*B 3 3"]
) -> Float[np.ndarray, "*B"]:
  """The angle of the rotation from b to a, in degrees, accurate near 0 and near 180.

  Args:
    a: rotation matrices.
    b: as many.
  """
  difference = a @ np.swapaxes(b, -1, -2)
  # Frobenius distance is 2 sqrt(2) sin(angle / 2); the distance to the opposite turn, by the
  # trace, gives the cosine. The arc tangent of both has no flat spot.
  distance = np.linalg.norm(a - b, axis=(-2, -1)) / np.sqrt(8.0)
  cosine = np.sqrt(np.maximum(1.0 + np.trace(difference, axis1=-2, axis2=-1), 0.0)) / 2.0
  return np.degrees(2.0 * np.arctan2(distance, cosine))


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
