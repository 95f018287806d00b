"""How far predicted viewpoints are from the true ones."""

import numpy as np
from jaxtyping import Float

from umr_jax.types import checked

NEAR_DEG = 30.0


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
  cannot see: the second number forgives exactly that.

  Args:
    predicted: rotations from the learned object frame to the camera's.
    true: rotations from the true object frame to the camera's.
    alignment: the category's rotation from the true frame to the learned one
      (`alignment.global_rotation`).

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
  """`camera_errors` as a report has them, and whether they are below `NEAR_DEG`; [N] each."""
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
  """The angle of the rotation from b to a, in degrees, accurate near 0 and near 180."""
  difference = a @ np.swapaxes(b, -1, -2)
  # Frobenius distance is 2 sqrt(2) sin(angle / 2); the distance to the opposite turn, by the
  # trace, gives the cosine. The arc tangent of both has no flat spot.
  distance = np.linalg.norm(a - b, axis=(-2, -1)) / np.sqrt(8.0)
  cosine = np.sqrt(np.maximum(1.0 + np.trace(difference, axis1=-2, axis2=-1), 0.0)) / 2.0
  return np.degrees(2.0 * np.arctan2(distance, cosine))
