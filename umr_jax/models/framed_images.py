"""Images as pose search compares them: dense features in a frame around each silhouette."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from umr_jax.geometry import quaternion
from umr_jax.geometry.sampling import axis_centers, bilinear_sample, pixel_centers
from umr_jax.types import Projection, checked

# Half the frame's side, in square roots of the silhouette's area: what is up to 11 times as long as
# wide fits.
HALF_FRAME = 1.7
# Principal components that are left of the features.
COMPONENTS = 160
# Added to the variance of every channel, as a share of the largest: small ones are noise.
_NOISE = 1e-3


@struct.dataclass
class FramedImages:
  """Images in frames around their silhouettes' centres of mass, normalized by their areas.

  A pixel on the object has features of expected square norm 1, and as much of its silhouette.
  """

  values: Float[Array, "N S S C1"]  # the features on the object, zero outside; the silhouette last
  centers: Float[Array, "N 2"]  # of mass, in image space
  sides: Float[Array, "N"]  # square roots of the areas, in image space

  @property
  def size(self) -> int:
    """S, pixels per side of the frames."""
    return self.values.shape[1]

  @property
  def flat(self) -> Float[Array, "N D"]:
    """One row for each image."""
    return self.values.reshape(len(self.values), -1)

  def __len__(self) -> int:
    return len(self.values)


def fit_projection(
  features: Float[np.ndarray, "n h w D"], masks: Float[np.ndarray, "n H W"]
) -> Projection:
  """Principal components of the features on the objects, whitened.

  Args:
    features: their signed square roots are taken: rectified features have long tails.
    masks: silhouettes of the same images.
  """
  shape = (len(masks), *features.shape[1:3])
  small = np.asarray(jax.image.resize(jnp.asarray(masks), shape, "linear"))
  # Cells of coarse maps may have no thin object to more than a half.
  inside = small > 0.5 * small.max()
  cells = np.asarray(_rooted(jnp.asarray(features[inside], jnp.float32)), np.float64)
  mean = cells.mean(axis=0)
  variances, vectors = np.linalg.eigh(np.cov((cells - mean).T))
  order = np.argsort(-variances)[:COMPONENTS]
  deviations = np.sqrt(variances[order] + _NOISE * variances[order[0]])
  matrix = vectors[:, order] / (deviations * np.sqrt(len(order)))
  return Projection(mean=jnp.asarray(mean, jnp.float32), matrix=jnp.asarray(matrix, jnp.float32))


@jax.jit
def project_features(
  projection: Projection, features: Float[Array, "n h w D"]
) -> Float[Array, "n h w C"]:
  """The channels of a network's features.

  Args:
    projection: from `fit_projection`.
    features: of the same network.
  """
  return (_rooted(features) - projection.mean.reshape(1, 1, 1, -1)) @ projection.matrix


@functools.partial(jax.jit, static_argnames="size")
@checked
def frame_images(
  maps: Float[Array, "N h w C"], masks: Float[Array, "N H W"], *, size: int
) -> FramedImages:
  """Resamples maps in the frames of their silhouettes.

  Args:
    maps: features of whole crops.
    masks: silhouettes in the same crops.
    size: pixels per side of the frames.
  """
  center, side = center_and_side(masks)
  place = jnp.asarray(pixel_centers(size, size).reshape(-1, 2))
  points = center[:, None] + HALF_FRAME * side[:, None, None] * place[None]
  shape = (len(maps), size, size, -1)
  mask = bilinear_sample(masks[..., None], points).reshape(shape)
  features = bilinear_sample(maps, points).reshape(shape)
  return FramedImages(
    values=jnp.concatenate([features * mask, mask], axis=-1), centers=center, sides=side
  )


def center_and_side(
  masks: Float[Array, "N H W"],
) -> tuple[Float[Array, "N 2"], Float[Array, "N"]]:
  """The centre of mass of silhouettes, and the side of the square of their area, in image space."""
  height, width = masks.shape[1:]
  x, y = (axis_centers(size).astype(np.float32) for size in (width, height))
  mass = jnp.maximum(jnp.sum(masks, axis=(1, 2)), 1.0)
  center = jnp.stack([jnp.sum(masks, axis=1) @ x, jnp.sum(masks, axis=2) @ y], axis=-1)
  return center / mass[:, None], jnp.sqrt(mass * (4.0 / (height * width)))


def places_in_frame(
  points: Float[Array, "n 3"],
  rotation: Float[Array, "4"],
  center: Float[Array, "2"],
  side: Float[Array, ""],
) -> Float[Array, "n 2"]:
  """Where points of object space project in the frame of a view's silhouette, from -1 to 1.

  Args:
    points: in object space.
    rotation: quaternion of the view.
    center: the silhouette's, of mass, under a camera of scale 1 at the centre.
    side: the square root of its area, likewise.
  """
  return (points @ quaternion.to_matrix(rotation)[:2].T - center[None]) / (HALF_FRAME * side)


def silhouette_aspects(images: FramedImages) -> Float[np.ndarray, "n"]:
  """Height by width of each silhouette's box, in pixels of its frame; empty ones are left out.

  Args:
    images: in their frames.
  """
  inside = np.asarray(images.values[..., -1]) > 0.5
  inside = inside[np.any(inside, axis=(1, 2))]
  return _extent(np.any(inside, axis=2)) / _extent(np.any(inside, axis=1))


def _extent(occupied: Bool[np.ndarray, "n S"]) -> Int[np.ndarray, "n"]:
  """[n]: from the first to the last True of each row."""
  return occupied.shape[1] - np.argmax(occupied[:, ::-1], axis=1) - np.argmax(occupied, axis=1)


def _rooted(features: Array) -> Array:
  return jnp.sign(features) * jnp.sqrt(jnp.abs(features))
