"""Which element of the mesh a keypoint lies on, and where that element is in other images.

All ways of carrying a keypoint from one image to another do no more than this: by texture flow the
elements are faces, by camera they are the template's vertices, by surface points between vertices.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from umr_jax.geometry.picking import pick
from umr_jax.predict.transfer import nearest_covered, nearest_rows
from umr_jax.types import checked

# The side at which silhouettes are drawn for the protocol, whatever the crops' size.
SILHOUETTE_SIZE = 256
# The published protocol draws a keypoint as a bump on a map of 256 x 256 pixels.
_MAP = 256
_WIDTH = 3.0  # its standard deviation, in pixels
_EXTENT = 9  # pixels at which it is cut off


class Landmarks(NamedTuple):
  """The K keypoints of N images, and M mesh elements in each; positions in [-1, 1] of the crops."""

  points: Float[np.ndarray, "N K 2"]
  visible: Bool[np.ndarray, "N K"]
  chosen: Int[np.ndarray, "N K C"]  # the elements between which a keypoint lies
  weights: Float[np.ndarray, "N K C"]  # of each of them
  distance: Float[np.ndarray, "N K"]  # from the keypoint to that place, in its own image
  positions: Float[np.ndarray, "N M 2"]  # where each element is

  def carried(
    self, source: Int[np.ndarray, "P"], target: Int[np.ndarray, "P"]
  ) -> Float[np.ndarray, "P K 2"]:
    """Where keypoints of the source images are in the target images."""
    places = self.positions[target[:, None, None], self.chosen[source]]
    return np.einsum("pkc,pkcx->pkx", self.weights[source], places)


@checked
def landmarks_by_flow(
  points: Float[np.ndarray, "N K 2"],
  visible: Bool[np.ndarray, "N K"],
  flow: Float[np.ndarray, "N F T 2"],
) -> Landmarks:
  """The face whose texels sample the photograph at a keypoint.

  Args:
    points: keypoints.
    visible: whether they are seen.
    flow: where each texel of each face samples its photograph.

  Returns:
    Faces as elements; a face is at the mean of its texels' samples.

  Source: Li et al. 2020, section 4.3, and the released evaluation: a keypoint is a bump of 3 pixels
    on a map of 256, peak 1 on the pixel in which it lies, cut off at 3 deviations; the face whose
    texels read the largest mean wins, of equal ones the first.
    Departs: the map is read with the rule that (0.5, 0.5) is the first pixel's centre.
  """
  positions = flow.mean(axis=2)
  chosen = np.zeros(visible.shape, np.int64)
  for n, k in np.argwhere(visible):
    chosen[n, k] = int(np.argmax(flow_scores(points[n, k], flow[n])))
  return _landmarks(points, visible, chosen, positions, at=positions)


@checked
def flow_scores(
  point: Float[np.ndarray, "2"], flow: Float[np.ndarray, "F T 2"]
) -> Float[np.ndarray, "F"]:
  """The mean, over a face's texels, of a keypoint's bump where they sample it."""
  readings = np.ones(flow.shape[:-1])
  # The map is the product of a bump along x and one along y, and so is its bilinear reading.
  grid = np.arange(-1, _MAP + 1)  # zero beyond the image
  for axis in range(2):
    pixel = np.clip(np.floor((point[axis] + 1.0) / 2.0 * _MAP), 0, _MAP - 1)
    away = grid - pixel
    bump = np.exp(-(away**2) / (2.0 * _WIDTH**2)) * (np.abs(away) <= _EXTENT)
    bump[[0, -1]] = 0.0
    place = (flow[..., axis].astype(np.float64) + 1.0) / 2.0 * _MAP - 0.5
    readings *= np.interp(place, grid, bump, left=0.0, right=0.0)
  return readings.mean(axis=-1)


@checked
def landmarks_by_camera(
  points: Float[np.ndarray, "N K 2"],
  visible: Bool[np.ndarray, "N K"],
  vertices: Float[np.ndarray, "N V 2"],
  silhouettes: Float[np.ndarray, "N S S"],
) -> Landmarks:
  """The template's vertex that is seen nearest to a keypoint, in front or behind.

  Args:
    points: keypoints.
    visible: whether they are seen.
    vertices: of the template, under each image's camera.
    silhouettes: predicted of each image.

  Returns:
    Vertices as elements; a vertex is at the nearest pixel that the silhouette covers at all, or in
    its own place if there is none.

  Source: Li et al. 2020, section 4.3, and the released evaluation, after Kulkarni et al. 2019.
  """
  chosen = np.zeros(visible.shape, np.int64)
  for n in range(len(points)):
    chosen[n] = nearest_rows(points[n], vertices[n])
  positions = np.stack([nearest_covered(v, s) for v, s in zip(vertices, silhouettes, strict=True)])
  return _landmarks(points, visible, chosen, positions, at=vertices)


@checked
def landmarks_by_surface(
  points: Float[np.ndarray, "N K 2"],
  visible: Bool[np.ndarray, "N K"],
  vertices: Float[np.ndarray, "N V 3"],
  faces: Int[np.ndarray, "F 3"],
) -> Landmarks:
  """The point of an image's own mesh that is seen at a keypoint.

  Args:
    points: keypoints.
    visible: whether they are seen.
    vertices: of each image's mesh, projected: (x, y, depth).
    faces: of the meshes.

  Returns:
    Vertices as elements, three of them for each keypoint.

  Departs: Li et al. 2020 (section 4.3) go by the template's nearest vertex, in front or behind;
    this is as fine as the surface, and never takes what is hidden.
  """
  found = [pick(points[n], vertices[n], faces) for n in range(len(points))]
  chosen, weights, distance = (np.stack(column) for column in zip(*found, strict=True))
  return Landmarks(points, visible, chosen, weights, distance, vertices[..., :2])


def _landmarks(
  points: np.ndarray,
  visible: np.ndarray,
  chosen: np.ndarray,
  positions: np.ndarray,
  *,
  at: np.ndarray,
) -> Landmarks:
  """One element for each keypoint, which is judged where it is `at`."""
  on = np.take_along_axis(at, chosen[..., None], axis=1)
  distance = np.linalg.norm(on - points, axis=-1)
  weights = np.ones((*chosen.shape, 1))
  return Landmarks(points, visible, chosen[..., None], weights, distance, positions)
