"""One pass over a split for its keypoints: where the network puts faces and vertices."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from umr_jax.data.batching import evaluation_batches
from umr_jax.data.dataset import Split
from umr_jax.data.transforms import CropSpec
from umr_jax.eval.landmarks import (
  SILHOUETTE_SIZE,
  Landmarks,
  landmarks_by_camera,
  landmarks_by_flow,
  landmarks_by_surface,
)
from umr_jax.geometry import camera
from umr_jax.geometry.symmetry import symmetrize
from umr_jax.models.assemble import face_flow
from umr_jax.render import soft_silhouette
from umr_jax.types import Template, Topology


def collect_landmarks(
  infer: Callable[..., Any],
  params: Any,
  batch_stats: Any,
  template: Template,
  split: Split,
  *,
  topology: Topology,
  batch_size: int,
  image_size: int,
  padding: float,
) -> dict[str, Landmarks]:
  """The keypoints of a split's images on the mesh, by each way of carrying them.

  Args:
    infer: from `models.infer.make_infer`, not jitted.
    params: of the network; unreplicated.
    batch_stats: likewise.
    template: the category's mean shape, whose vertices carry keypoints by camera.
    split: images without keypoints are left out.
    topology: of the meshes.
    batch_size: images at a time.
    image_size: of the crops.
    padding: of the crops.

  Returns:
    By "flow"; by "camera", the published protocol's template; and, ours, by "mesh", the same with
    each image's own vertices in place of the template's, and by "surface", the point of that mesh
    that is seen. Empty if no keypoint is visible.
  """

  @jax.jit
  def see(images: jax.Array) -> tuple[jax.Array, ...]:
    found = infer(params, batch_stats, template, images)
    whole = symmetrize(template.half_vertices, num_center=topology.num_center)
    whole = jnp.broadcast_to(whole, found.vertices.shape)
    own = camera.project(found.vertices, found.camera)
    corners = camera.face_vertices(own, topology.faces)
    silhouette = soft_silhouette(corners, image_size=SILHOUETTE_SIZE)
    flow = face_flow(found.flow_map, topology)
    return flow, camera.project(whole, found.camera)[..., :2], own, silhouette

  rows: dict[str, list[Landmarks]] = {"flow": [], "camera": [], "mesh": [], "surface": []}
  for batch, crops in evaluation_batches(
    split, CropSpec(image_size=image_size, padding=padding), batch_size=batch_size, parts=False
  ):
    known = [(i, c.keypoints) for i, c in enumerate(crops) if c.keypoints is not None]
    if not known:
      continue
    flow, vertices, own, silhouettes = (np.asarray(x, np.float64) for x in see(batch.image))
    index, given = [i for i, _ in known], np.stack([k for _, k in known]).astype(np.float64)
    points, visible = given[..., :2], given[..., 2] > 0.5
    rows["flow"].append(landmarks_by_flow(points, visible, flow[index]))
    rows["surface"].append(landmarks_by_surface(points, visible, own[index], topology.faces))
    for name, places in (("camera", vertices), ("mesh", own[..., :2])):
      rows[name].append(landmarks_by_camera(points, visible, places[index], silhouettes[index]))
  joined = {
    name: Landmarks(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    for name, parts in rows.items()
    if parts
  }
  return joined if joined and joined["flow"].visible.any() else {}
