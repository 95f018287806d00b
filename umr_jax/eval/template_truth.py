"""The template against the true shapes of training images, where a data set has them.

Nothing of it is used in training: it tells whether a template gets worse from M-step to M-step.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from umr_jax.data.dataset import Dataset, every_nth
from umr_jax.eval.camera_error import box_similarity, boxes, global_rotation
from umr_jax.eval.shape_error import GRID
from umr_jax.geometry import camera
from umr_jax.geometry.voxels import Mesh, solid_iou

# At most this many training images and different shapes are compared, evenly spaced.
_IMAGES, _SHAPES = 200, 40


@dataclasses.dataclass(frozen=True, eq=False)
class TemplateTruth:
  """True cameras of some training images, and true shapes."""

  rows: Int[np.ndarray, "N"]  # of the training split
  rotations: Float[np.ndarray, "N 3 3"]  # from the true object frame to the camera's
  shapes: tuple[Mesh, ...]

  @classmethod
  def from_dataset(cls, dataset: Dataset) -> "TemplateTruth | None":
    """That of a data set; None where it lacks cameras or meshes."""
    split = dataset.splits["train"]
    if not dataset.meshes:
      return None
    rows = np.arange(len(split))[every_nth(len(split), _IMAGES)]
    examples = [split[int(row)] for row in rows]
    cameras = {row: e.camera for row, e in zip(rows, examples, strict=True) if e.camera is not None}
    names = sorted({e.shape for e in examples if e.shape in dataset.meshes and e.shape is not None})
    if not cameras or not names:
      return None
    return cls(
      np.array(list(cameras)),
      _rotations(np.stack(list(cameras.values()))),
      tuple(Mesh(*dataset.meshes[name]) for name in names[every_nth(len(names), _SHAPES)]),
    )

  def iou(
    self,
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    target_cameras: Float[np.ndarray, "M 7"],
  ) -> float:
    """The template's mean volume overlap with the true shapes after one similarity for all.

    Args:
      vertices: of the template.
      faces: likewise.
      target_cameras: of all training images, in the template's frame: they give the rotation.
    """
    rotation = global_rotation(predicted=_rotations(target_cameras[self.rows]), true=self.rotations)
    turned = np.asarray(vertices, np.float64) @ rotation
    true = np.stack([boxes(np.asarray(s.vertices)[np.unique(s.faces)]) for s in self.shapes])
    own = np.repeat(boxes(turned)[None], len(true), axis=0)
    translation, scale = box_similarity(predicted=own, true=true.astype(np.float64))
    template = Mesh((turned + translation) * scale, faces)
    return float(np.mean([solid_iou(template, shape, resolution=GRID) for shape in self.shapes]))


def _rotations(cameras: Float[np.ndarray, "N 7"]) -> Float[np.ndarray, "N 3 3"]:
  return np.asarray(camera.rotation(jnp.asarray(cameras, jnp.float32)), np.float64)
