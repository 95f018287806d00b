"""Canonical features: the mean, over training images, of what the encoder sees at each vertex.

The canonical map of equation 1 before it is quantised to parts, at vertices in place of UV pixels.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float
from sklearn.decomposition import PCA

from umr_jax.config.settings import Config
from umr_jax.data.dataset import Split
from umr_jax.em.image_statistics import rows_of
from umr_jax.geometry import camera
from umr_jax.geometry.sampling import bilinear_sample
from umr_jax.geometry.symmetry import mirrored_order
from umr_jax.losses.canonical_features import unit_features, visible_vertices
from umr_jax.models.infer import encoder_maps, infer
from umr_jax.train import parallel
from umr_jax.types import Batch, CanonicalFeatures, EMState, Model, Projection, Topology, checked

# At most this many images, evenly spaced.
_IMAGES = 300
# Principal components of the encoder's features: the others tell images apart rather than places.
_COMPONENTS = 20
# How often means are averaged with the neighbours': a cell of the maps is wider than a face.
_SMOOTHINGS = 2
# A vertex that fewer images show, after smoothing, is not known.
_FEWEST = 1.0
_TINY = 1e-6


@struct.dataclass
class VertexRows:
  """Where a batch's images show the vertices, and what the encoder sees of them."""

  valid: Bool[Array, "B"]  # False for rows that only pad the batch
  maps: Float[Array, "B h w F"]
  inside: Bool[Array, "B h w"]  # the cells on the object
  projected: Float[Array, "B V 2"]
  visible: Bool[Array, "B V"]


ComputeRows = Callable[[Model, Batch], VertexRows]


def vertex_rows(model: Model, batch: Batch) -> VertexRows:
  """Where the network places the vertices in the images of a batch; pure.

  Args:
    model: with a frozen encoder.
    batch: of training images.
  """
  found = infer(model, batch.image)
  maps = encoder_maps(model, batch.image)[-1]
  size = batch.image.shape[1]
  return VertexRows(
    valid=batch.valid,
    maps=maps,
    inside=jax.image.resize(batch.mask, maps.shape[:3], "linear") > 0.5,
    projected=camera.project(found.vertices, found.camera)[..., :2],
    visible=visible_vertices(found.vertices, found.camera, model.topology, image_size=size),
  )


def with_canonical_features(
  em_state: EMState, split: Split, model: Model, *, compute: ComputeRows, config: Config
) -> EMState:
  """The state with canonical features; without, if no image shows a cell of an object.

  Args:
    em_state: of the model.
    split: the training images.
    model: predicts the meshes.
    compute: `vertex_rows`, of a replicated model and a sharded batch.
    config: of the images' crops, and of how many are computed at a time.

  Departs: Li et al. 2020 have a canonical map of parts alone.
  """
  some = split.subsample(_IMAGES)
  passed = list(rows_of(compute, model, some, config, name="canonical features", parts=False))
  rows = jax.tree.map(lambda *leaves: np.concatenate(leaves), *passed)
  # Decompositions need not be the same to the last bit on every host.
  found = parallel.broadcast_from_host0(fit_features(rows, model.topology))
  return dataclasses.replace(em_state, canonical_features=found)


def fit_features(rows: VertexRows, topology: Topology) -> CanonicalFeatures | None:
  """The canonical features of images; None if none of them shows anything.

  Args:
    rows: of all images, on the host.
    topology: the mesh.
  """
  if not rows.inside.any() or not rows.visible.any():
    return None
  cells = rows.maps[rows.inside]
  components = PCA(min(_COMPONENTS, *cells.shape), svd_solver="full").fit(cells.astype(np.float64))
  projection = Projection(
    mean=components.mean_.astype(np.float32), matrix=components.components_.T.astype(np.float32)
  )
  channels = unit_features(projection, jnp.asarray(rows.maps))
  shown = np.asarray(bilinear_sample(channels, jnp.asarray(rows.projected)), np.float64)
  weights = np.asarray(rows.visible, np.float64)
  values, known = mean_over_images(shown, weights, topology)
  squared = np.sum(np.square(shown - values), axis=-1)
  return CanonicalFeatures(
    projection=projection,
    values=values.astype(np.float32),
    known=known,
    variance=np.float32(max(np.sum(weights * squared) / np.sum(weights), _TINY)),
  )


@checked
def mean_over_images(
  shown: Float[np.ndarray, "N V C"], weights: Float[np.ndarray, "N V"], topology: Topology
) -> tuple[Float[np.ndarray, "V C"], Bool[np.ndarray, "V"]]:
  """Means at vertices over images, both sides of the object, and neighbours.

  Args:
    shown: what each image shows at each vertex.
    weights: 0 where it does not show it.
    topology: the mesh.

  Returns:
    The means, and whether any image shows the vertex, its mirror image, or one that is near; zeros
    where not.
  """
  order = mirrored_order(topology.num_vertices, topology.num_center)
  total, count = np.einsum("nv,nvc->vc", weights, shown), weights.sum(axis=0)
  total, count = total + total[order], count + count[order]
  for _ in range(_SMOOTHINGS):
    total, count = (0.5 * x + 0.5 * x[topology.neighbors].mean(axis=1) for x in (total, count))
  known = count >= _FEWEST
  return np.where(known[:, None], total / np.maximum(count, _TINY)[:, None], 0.0), known
