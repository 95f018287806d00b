"""One pass over a split: everything that metrics read of a model's predictions, image by image.

An image goes through the network, and through test-time optimisation, once. What is kept of it is
small: the mesh, the camera, the flow map, its silhouette as bits, labels of parts as bytes.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike
from jaxtyping import Array

from umr_jax.data.batching import evaluation_batches
from umr_jax.data.dataset import Split, every_nth
from umr_jax.data.transforms import Crop, CropSpec
from umr_jax.eval.mask_metrics import backface_ratio, hard_mask_iou
from umr_jax.geometry import camera
from umr_jax.geometry.symmetry import symmetrize
from umr_jax.losses.mask import soft_iou
from umr_jax.models.assemble import uv_parts_to_texels
from umr_jax.models.infer import Infer, Inference
from umr_jax.predict.transfer import Correspondence, project_and_cover
from umr_jax.progress import tracked
from umr_jax.render import soft_rasterize, soft_silhouette
from umr_jax.types import Model, Topology

# The silhouettes that are compared with masks: the published settings, close to hard ones.
SIGMA = 1e-5
ANTIALIAS = 2
# Of how many of the first images all that the network predicted is kept: those that are shown.
KEPT = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
  """How a model is evaluated."""

  spec: CropSpec  # of crops, masks and renders; its augmentation is for training alone
  batch_size: int
  seed: int = 0  # of the bootstrap and of the Chamfer points
  sigma: float = SIGMA  # softness of the silhouettes, whatever it was in training
  antialias: int = ANTIALIAS  # samples per pixel and axis of the silhouettes
  alignment_images: int = 200  # how many training images, evenly spaced, fix what is fixed on them
  max_meshes: int = 100  # how many images are measured in 3D at most


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
  """The rows of a split's images, N of them."""

  vertices: np.ndarray  # [N, V, 3] float32, predicted
  rotations: np.ndarray  # [N, 3, 3], of the predicted cameras
  mask_iou: np.ndarray  # [N], soft
  mask_iou_hard: np.ndarray  # [N]
  backface_ratio: np.ndarray  # [N]
  silhouettes: list[tuple[np.ndarray, np.ndarray] | None]  # as bits: of the mesh, and the mask
  has_camera: np.ndarray  # [N] bool: the images whose true camera is known
  true_rotations: np.ndarray  # [N, 3, 3]; the identity where unknown
  shapes: list[str | None]  # keys into the data set's meshes
  keypoints: list[np.ndarray | None]  # [K, 3]: x, y in [-1, 1] of the crop, visible
  correspondences: list[Correspondence | None]  # of images with keypoints
  parts: list[tuple[np.ndarray, np.ndarray] | None]  # labels [S, S]: of the canonical map, true
  view_probs: list[np.ndarray | None]  # [K], of the views of `Model.view_template`
  shown: list[tuple[np.ndarray, Inference] | None]  # of the first `KEPT`: the crop, and its own row

  def __len__(self) -> int:
    return len(self.shapes)

  def subsample(self, limit: int) -> "Predictions":
    """Evenly spaced rows, as `Split.subsample` takes them."""
    rows = every_nth(len(self), limit)
    return Predictions(
      **{field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)}
    )


def predict_split(
  model: Model, split: Split, protocol: Protocol, *, infer: Infer, observed: bool = True
) -> Predictions:
  """Predicts a split's images, neither mirrored nor jittered, each of them once.

  Args:
    model: to evaluate.
    split: of a data set.
    protocol: how.
    infer: how the model reconstructs; jitted, so that all splits share what was compiled.
    observed: False leaves out what only the images that are evaluated need: masks, keypoints, and
      what is shown of them.

  Raises:
    ValueError: if the split is empty, or a prediction is not finite.
  """
  parts = model.canonical_uv is not None
  observe = _make_observe(model.topology, protocol, parts=parts, observed=observed)
  rows: list[Predictions] = []
  size = protocol.batch_size
  batches = evaluation_batches(split, protocol.spec, batch_size=size, parts=parts)
  for batch, crops in tracked(batches, "evaluation, images", total=len(split), step=size):
    found = infer(model, jnp.asarray(batch.image))
    kept = jax.device_get(observe(model, found, batch.mask))
    wanted = KEPT - sum(map(len, rows)) if observed else 0
    shown = _first_rows(found, crops[: max(wanted, 0)])
    rows.append(_rows(kept, crops, model.topology, shown))
  if not rows:
    raise ValueError("there is nothing to evaluate: the split holds no image")
  joined = _joined(rows)
  if not np.isfinite(joined.vertices).all():
    raise ValueError("the predicted vertices are not finite; evaluate an earlier checkpoint")
  return joined


def _joined(batches: list[Predictions]) -> Predictions:
  joined: dict[str, Any] = {}
  for field in dataclasses.fields(Predictions):
    columns = [getattr(batch, field.name) for batch in batches]
    arrays = isinstance(columns[0], np.ndarray)
    joined[field.name] = np.concatenate(columns) if arrays else list(itertools.chain(*columns))
  return Predictions(**joined)


@struct.dataclass
class _Observed:
  """What is kept of one batch, on the device; None for what was not asked for."""

  vertices: Array
  rotations: Array
  flow_map: Array | None
  scores: tuple[Array, Array, Array] | None  # mask IoU, soft and hard, and backface ratio
  covered: Array | None  # [B, S, S], where the mesh's silhouette is above a half
  # The template and the mesh under the camera, and the pixels that the mesh covers at all.
  projected: tuple[Array, Array, Array] | None
  labels: Array | None  # of the canonical parts, 0 for background
  view_probs: Array | None


def _make_observe(
  topology: Topology, protocol: Protocol, *, parts: bool, observed: bool
) -> Callable[[Model, Inference, ArrayLike], _Observed]:
  size = protocol.spec.image_size

  @jax.jit
  def observe(model: Model, found: Inference, mask: Array) -> _Observed:
    corners = camera.project_faces(found.vertices, found.camera, topology.faces)
    scores = covered = projected = labels = None
    if observed:
      half = jnp.asarray(model.template.half_vertices)
      template = symmetrize(half, num_center=topology.num_center)
      shapes = jnp.stack([jnp.broadcast_to(template, found.vertices.shape), found.vertices], 1)
      projected = jax.vmap(lambda s, c: project_and_cover(s, c, topology))(shapes, found.camera)
      alpha = soft_silhouette(
        corners, image_size=size, sigma=protocol.sigma, antialias=protocol.antialias
      )
      covered = alpha > 0.5
      scores = (
        soft_iou(alpha=alpha, mask=mask),
        hard_mask_iou(alpha=alpha, mask=mask),
        backface_ratio(found.vertices, found.camera, topology, image_size=size),
      )
    if parts:
      texels = uv_parts_to_texels(jnp.asarray(model.canonical_uv), topology)
      texels = jnp.broadcast_to(texels, (len(corners), *texels.shape))
      rgba = soft_rasterize(corners, texels, image_size=size, aggr_rgb="hard")
      labels = 1 + jnp.argmax(rgba[..., 1:-1], axis=-1)
      labels = jnp.where(rgba[..., -1] > 0.5, labels, 0)
    return _Observed(
      vertices=found.vertices,
      rotations=camera.rotation(found.camera),
      flow_map=found.flow_map if observed else None,
      scores=scores,
      covered=covered,
      projected=projected,
      labels=labels,
      view_probs=found.view_probs if observed else None,
    )

  return observe


def _first_rows(found: Inference, crops: list[Crop]) -> list[tuple[np.ndarray, Inference]]:
  """The images of these crops, each with its row of a batch's prediction, on the host."""
  if not crops:
    return []
  held = jax.device_get(found)
  # Copies: a view of one row would keep the whole batch in memory.
  return [
    (crop.image, jax.tree.map(lambda array, row=row: array[row].copy(), held))
    for row, crop in enumerate(crops)
  ]


def _rows(
  found: _Observed,
  crops: list[Crop],
  topology: Topology,
  shown: list[tuple[np.ndarray, Inference]],
) -> Predictions:
  """The valid rows of a batch, on the host."""
  count = len(crops)
  known = np.array([crop.camera is not None for crop in crops])
  identity = np.array([0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0], np.float32)
  true = np.stack([identity if crop.camera is None else crop.camera for crop in crops])
  scores = [np.zeros(count)] * 3 if found.scores is None else found.scores
  probs = found.view_probs
  mask_iou, mask_iou_hard, backfaces = (np.asarray(x[:count], np.float64) for x in scores)
  return Predictions(
    vertices=np.asarray(found.vertices[:count]),
    rotations=np.asarray(found.rotations[:count], np.float64),
    mask_iou=mask_iou,
    mask_iou_hard=mask_iou_hard,
    backface_ratio=backfaces,
    silhouettes=[_silhouettes(found, row, crop) for row, crop in enumerate(crops)],
    has_camera=known,
    true_rotations=np.asarray(camera.rotation(jnp.asarray(true)), np.float64),
    shapes=[crop.shape for crop in crops],
    keypoints=[crop.keypoints for crop in crops],
    correspondences=[
      None if crop.keypoints is None else _correspondence(found, row, topology)
      for row, crop in enumerate(crops)
    ],
    parts=[_labels(found, row, crop) for row, crop in enumerate(crops)],
    view_probs=[None if probs is None else np.array(probs[row]) for row in range(count)],
    shown=[*shown, *[None] * (count - len(shown))],
  )


def _silhouettes(found: _Observed, row: int, crop: Crop) -> tuple[np.ndarray, np.ndarray] | None:
  if found.covered is None:
    return None
  return np.packbits(found.covered[row], axis=-1), np.packbits(crop.mask > 0.5, axis=-1)


def _correspondence(found: _Observed, row: int, topology: Topology) -> Correspondence | None:
  if found.projected is None or found.flow_map is None:
    return None
  # Copies: a view of one row would keep the whole batch in memory.
  template, vertices, covered = (array[row] for array in found.projected)
  return Correspondence(
    flow_map=np.array(found.flow_map[row]),
    template=np.asarray(template, np.float64),
    vertices=np.asarray(vertices, np.float64),
    faces=topology.faces,
    topology=topology,
    covered=np.packbits(covered, axis=-1),
  )


def _labels(found: _Observed, row: int, crop: Crop) -> tuple[np.ndarray, np.ndarray] | None:
  if found.labels is None or crop.parts is None or not crop.parts.any():
    return None
  true = np.argmax(crop.parts, axis=-1)
  return np.asarray(found.labels[row]).astype(np.uint8), true.astype(np.uint8)
