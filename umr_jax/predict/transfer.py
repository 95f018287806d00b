"""Keypoint transfer: where a point of one image is in another of the same category.

`transfer_keypoints` works in pixels of the images. It is two halves, which the evaluation uses one
by one because it pairs every image with many: `locate` finds the element of the mesh that a point
of the source lies on, and `carry` finds where this element is in the target. Both work in
coordinates of the crops, [-1, 1] from outer edge to outer edge.
"""

import dataclasses
import functools
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike
from scipy.spatial import KDTree

from umr_jax.geometry import camera as camera_lib
from umr_jax.geometry.picking import pick
from umr_jax.models.assemble import face_flow
from umr_jax.predict.reconstruction import Reconstruction
from umr_jax.render import soft_silhouette
from umr_jax.types import Topology, checked

# By the face whose texels are sampled at the point (the paper's), by the nearest vertex of the
# category's template under both cameras (the paper's), or of each image's own mesh, or by the point
# of the own mesh's surface.
Method = Literal["flow", "camera", "mesh", "surface"]
METHODS: tuple[Method, ...] = get_args(Method)

# The side at which silhouettes are rendered for the protocol, whatever the crops' size.
SILHOUETTE_SIZE = 256
# The published protocol renders a keypoint as a Gaussian on a map of 256 x 256 pixels.
_MAP = 256
_WIDTH = 3.0  # its standard deviation, in pixels
_EXTENT = 9  # pixels at which it is truncated
# How far a point may be from its element, and a vertex from the silhouette, before the transfer is
# in doubt: a twentieth of the crop's side.
_DOUBT = 0.1
# How far behind the target's nearest surface a point may lie, in units of the crop, before it
# counts as hidden; and what is left of its confidence.
_DEPTH_TOLERANCE, _HIDDEN = 0.05, 0.1


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Correspondence:
  """How one image corresponds to the category's mesh: all that keypoint transfer reads of it."""

  template: np.ndarray  # [V, 3], the category's under the image's camera: (x, y, depth)
  vertices: np.ndarray  # [V, 3], the image's own mesh under its camera
  faces: np.ndarray  # [F, 3], of the own mesh
  covered: np.ndarray  # [S, S / 8] uint8, the pixels that the silhouette covers at all, packed
  # [Hu, Wu, 2], at the network's resolution, and its mesh; None for a mesh without a flow.
  flow_map: np.ndarray | None = None
  topology: Topology | None = None

  def face_flow(self) -> np.ndarray:
    """Where each texel of each face samples the crop, [F, T, 2] float64."""
    if self.flow_map is None or self.topology is None:
      raise ValueError("a mesh without a flow map carries no keypoints by flow")
    flow = _face_flow(jnp.asarray(self.flow_map)[None], self.topology)
    return np.asarray(flow[0], np.float64)

  @functools.cached_property
  def face_positions(self) -> np.ndarray:
    """Where each face samples the crop on average, [F, 2] float64."""
    return self.face_flow().mean(axis=1)

  def nearest_covered(self, points: np.ndarray) -> np.ndarray:
    """The nearest pixel of the silhouette for each point [N, 2]; see `nearest_covered`."""
    return nearest_covered(points, np.unpackbits(self.covered, axis=-1))


class Located(NamedTuple):
  """The elements of the mesh (faces, or vertices) on which N points of an image lie."""

  elements: Int[np.ndarray, "N C"]
  weights: Float[np.ndarray, "N C"]  # of each of them; sum 1
  distance: Float[np.ndarray, "N"]  # in the image, from the point to that place


def transfer_keypoints(
  rec_a: Reconstruction,
  rec_b: Reconstruction,
  points_a: ArrayLike,
  method: Method = "flow",
) -> tuple[np.ndarray, np.ndarray]:
  """Finds the points of one image in another of the same category.

  Args:
    rec_a: of the image that the points are in.
    rec_b: of the other, from the same checkpoint.
    points_a: [N, 2], (x, y) in pixels of the input, (0.5, 0.5) the centre of the first.
    method: "flow" goes by the face that samples its texture at the point, and needs neither shape
      nor camera; "camera" by the template under both cameras, and "mesh" by the two meshes under
      them; "surface" by the point of the source's own mesh that is visible there, and where the
      target's own mesh has it.

  Returns:
    Points [N, 2] in pixels of the other input, and confidence [N] in [0, 1]: only the order of
    confidences of one method has a meaning.

  Raises:
    ValueError: for points that are not finite [N, 2], or reconstructions of two checkpoints.

  Source: Li et al. 2020, section 4.3, and the released evaluation.
  """
  points = np.asarray(points_a, np.float64)
  if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
    raise ValueError(f"points_a has shape {points.shape}; expected finite (x, y) rows, [N, 2]")
  # Templates of two runs agree nowhere, and those of one run's checkpoints only nearly.
  if rec_a.flow_map.shape != rec_b.flow_map.shape or not np.array_equal(
    rec_a.template, rec_b.template
  ):
    raise ValueError(
      "the reconstructions have different templates or maps: take both from one checkpoint"
    )
  if method not in METHODS:
    raise ValueError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
  (x0, y0, x1, _), (u0, v0, u1, _) = rec_a.box, rec_b.box
  inside = 2.0 * (points - [x0, y0]) / (x1 - x0) - 1.0
  located = locate(inside, correspondence(rec_a), method)
  moved, confidence = carry(located, correspondence(rec_b), method)
  return (moved + 1.0) / 2.0 * (u1 - u0) + [u0, v0], confidence


def correspondence(rec: Reconstruction) -> Correspondence:
  """What keypoint transfer reads of a reconstruction."""
  shapes = jnp.asarray(np.stack([rec.template, rec.vertices]))
  template, own, covered = project_and_cover(shapes, jnp.asarray(rec.camera), rec.topology)
  return Correspondence(
    flow_map=rec.flow_map,
    template=np.asarray(template, np.float64),
    vertices=np.asarray(own, np.float64),
    faces=rec.faces,
    topology=rec.topology,
    covered=np.packbits(np.asarray(covered), axis=-1),
  )


@functools.partial(jax.jit, static_argnames="topology")
def project_and_cover(
  shapes: Float[Array, "2 V 3"], camera: Float[Array, "7"], topology: Topology
) -> tuple[Array, Array, Array]:
  """Both shapes under the camera, [V, 3] each, and the pixels that the second covers at all.

  Args:
    shapes: the template and the image's own mesh, in object space.
    camera: of the image.
    topology: of both.

  Returns:
    The projected shapes, and [S, S] bool with S = `SILHOUETTE_SIZE`. The published protocol counts
    the silhouette's soft edge.
  """
  template, own = camera_lib.project(shapes, jnp.stack([camera, camera]))
  corners = camera_lib.face_vertices(own, topology.faces)
  return template, own, soft_silhouette(corners[None], image_size=SILHOUETTE_SIZE)[0] > 0.0


def locate(points: np.ndarray, source: Correspondence, method: Method) -> Located:
  """The elements of the mesh on which points of an image lie.

  Args:
    points: [N, 2] in the image's crop.
    source: of the image.
    method: as in `transfer_keypoints`.

  Returns:
    By flow faces, by camera vertices of the template, by mesh and by surface vertices of the own
    mesh: one for each point, by surface three.

  Source: Li et al. 2020, section 4.3, and the released evaluation, after Kulkarni et al. 2019
    (CSM): all vertices count, in front or behind. Departs: by surface is not in the paper; it never
    takes what is hidden, and is as fine as the surface.
  """
  if method == "surface":
    return Located(*pick(points, source.vertices, source.faces))
  if method == "flow":
    flow = source.face_flow()
    chosen = np.array([np.argmax(flow_scores(point, flow)) for point in points], np.int64)
    places = source.face_positions[chosen]
  else:
    vertices = (source.template if method == "camera" else source.vertices)[:, :2]
    chosen = nearest_rows(points, vertices)
    places = vertices[chosen]
  distance = np.linalg.norm(places - points, axis=-1)
  return Located(chosen[:, None], np.ones((len(points), 1)), distance)


def carry(
  located: Located, target: Correspondence, method: Method
) -> tuple[np.ndarray, np.ndarray]:
  """Where elements of the mesh are in an image.

  Args:
    located: N points of any other images, from `locate` by the same method.
    target: of the image.
    method: as in `transfer_keypoints`.

  Returns:
    Positions [N, 2] in the image's crop: by flow the mean over the face's texels; by camera and by
    mesh the centre of the silhouette's pixel that is nearest to the vertex, or the vertex itself if
    nothing is covered. And confidence [N] in [0, 1]: it falls with the distance of a point from its
    element, and of a vertex from the silhouette; by surface to a tenth where the target's own mesh
    hides it.

  Source: Li et al. 2020, section 4.3, and the released evaluation. The paper defines no confidence.
  """
  off = np.square(located.distance)
  if method == "flow":
    moved = target.face_positions[located.elements[:, 0]]
    return moved, np.exp(-off / (2 * _DOUBT**2))
  if method == "surface":
    moved = np.einsum("nk,nkc->nc", located.weights, target.vertices[located.elements])
    nearest = pick(moved[:, :2], target.vertices, target.faces).at(target.vertices)[:, 2]
    hidden = moved[:, 2] > nearest + _DEPTH_TOLERANCE
    return moved[:, :2], np.where(hidden, _HIDDEN, 1.0) * np.exp(-off / (2 * _DOUBT**2))
  vertices = target.template if method == "camera" else target.vertices
  moved = vertices[located.elements[:, 0], :2]
  positions = target.nearest_covered(moved)
  off = off + np.square(positions - moved).sum(axis=-1)
  sure = np.exp(-off / (2 * _DOUBT**2))
  return positions, sure if target.covered.any() else np.zeros(len(moved))


@checked
def flow_scores(
  point: Float[np.ndarray, "2"], flow: Float[np.ndarray, "F T 2"]
) -> Float[np.ndarray, "F"]:
  """The mean, over a face's texels, of a keypoint's heat map where they sample it.

  Args:
    point: a keypoint.
    flow: where each texel of each face samples the image.

  Source: Li et al. 2020, section 4.3, and the released evaluation: a keypoint is a Gaussian of 3
    pixels on a map of 256, peak 1 on the pixel in which it lies, truncated at 3 deviations; the
    face whose texels read the largest mean wins, of equal ones (as where none reads anything) the
    first.
    Departs: the map is read with the rule that (0.5, 0.5) is the first pixel's centre.
  """
  readings = np.ones(flow.shape[:-1])
  # The map is the product of a Gaussian along x and one along y, and so is its bilinear reading.
  grid = np.arange(-1, _MAP + 1)  # zero beyond the image
  for axis in range(2):
    pixel = np.clip(np.floor((point[axis] + 1.0) / 2.0 * _MAP), 0, _MAP - 1)
    away = grid - pixel
    peak = np.exp(-(away**2) / (2.0 * _WIDTH**2)) * (np.abs(away) <= _EXTENT)
    peak[[0, -1]] = 0.0
    place = (flow[..., axis].astype(np.float64) + 1.0) / 2.0 * _MAP - 0.5
    readings *= np.interp(place, grid, peak, left=0.0, right=0.0)
  return readings.mean(axis=-1)


@functools.partial(jax.jit, static_argnames="topology")
def _face_flow(flow_maps: Array, topology: Topology) -> Array:
  return face_flow(flow_maps, topology)


def nearest_rows(points: np.ndarray, rows: np.ndarray) -> np.ndarray:
  """For each point the nearest of some others, as indices [N].

  Args:
    points: [N, 2].
    rows: [V, 2].
  """
  squared = np.sum(np.square(points[:, None] - rows[None]), axis=-1)
  return np.argmin(squared, axis=-1)


def nearest_covered(points: np.ndarray, silhouette: np.ndarray) -> np.ndarray:
  """The centre of the nearest covered pixel for each point [N, 2]; the point, if none is covered.

  Args:
    points: in [-1, 1] of the silhouette's crop.
    silhouette: [S, S], covered where positive.
  """
  size = silhouette.shape[0]
  rows, columns = np.nonzero(silhouette > 0.0)
  if not len(rows):
    return np.array(points, np.float64)
  centers = (2.0 * np.stack([columns, rows], axis=-1) + 1.0 - size) / size
  return centers[KDTree(centers).query(points)[1]]
