"""Features without any weights: a network trained, from nothing, on the folder's own images.

Two tasks train it: to match points of the object between two views of an image, rotated, scaled,
mirrored, recoloured and before another background (a contrastive loss); and to regress how high and
how far from the middle of the mask a point lies. The first makes features of different points
different, the second makes those of one point in different images alike.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.ndimage import distance_transform_edt

from umr_jax.data.example import mask_box
from umr_jax.geometry.sampling import bilinear_sample
from umr_jax.models.dense_encoder import STRIDE, DenseEncoder
from umr_jax.models.initialize import initialize
from umr_jax.parts.features import Features
from umr_jax.types import checked

# Raised whenever the same images would give other features.
VERSION = 1
_BATCH = 8
_POINTS = 64  # points of each image that are matched
_RATE = 1e-3
_TEMPERATURE = 0.1
# Weights of the contrastive loss and of the regression of positions in the mask.
_CONTRAST, _PLACE = 0.3, 5.0
# Points closer than this, in half widths of the image, are neither the same nor different.
_NEAR = 0.25
# How two views of an image may differ.
_TURN = np.deg2rad(25.0).astype(np.float32)
_STRETCH = 0.25  # of the logarithm
_MOVE = 0.15
_RECOLOR = 0.3
_PICK = 4  # points are sampled from cells of so many pixels
_DRAWS = 19  # random numbers for a view: 6 of its map, 13 of its colours
_TINY = 1e-6
_ADAM = optax.scale_by_adam()


class _Folder(NamedTuple):
  """The images, and what training derives from their masks."""

  images: Float[Array, "N S S 3"]
  masks: Float[Array, "N S S"]
  cells: Float[Array, "N Q"]  # share of the object in a cell and all before it
  boxes: Float[Array, "N 4"]  # of the masks: x0, y0, x1, y1 in [-1, 1]
  depths: Float[Array, "N S S"]  # distance to the mask's edge, the largest being 1


class _View(NamedTuple):
  """An affine map from a view's positions to the image's: p = turn @ q + move."""

  turn: Float[Array, "B 2 2"]
  move: Float[Array, "B 2"]


@checked
def train_encoder_features(
  images: Float[np.ndarray, "N H W 3"],
  masks: Float[np.ndarray, "N H W"],
  *,
  size: int,
  steps: int,
  seed: int,
) -> Features:
  """Trains the network on a category's crops; about a quarter of a second a step at 128 pixels.

  Args:
    images: RGB in [0, 1], the object in the middle of each.
    masks: in [0, 1]; images without an object are left out.
    size: pixels per side of the network's input, in training and after it; a multiple of 8.
    steps: 500 are enough for a folder of some hundred images.
    seed: not negative.

  Returns:
    The features: 64 channels, not negative, of length one, at an eighth of `size`.

  Raises:
    ValueError: for fewer than two objects, or a size that is no multiple of 8.

  Source: van den Oord et al. 2018 (InfoNCE) between points, as dense contrastive learning has it.
  """
  folder = _prepare(images, masks, size)
  net = DenseEncoder()
  params: dict[str, Any] = {
    "net": initialize(net, image_size=size, seed=seed)[0],
    "place": {
      "kernel": np.zeros((net.features, 3), np.float32),
      "bias": np.zeros((1, 1, 3), np.float32),
    },
  }
  params = jax.tree.map(jnp.asarray, params)
  state = _ADAM.init(params)
  key = jax.random.key(seed)
  for i in range(steps):
    rate = _rate(i, steps)
    params, state = _step(net, params, state, folder, rate, jax.random.fold_in(key, i))
  return Features(partial(_extract, net, size, params["net"]), "encoder")


def _rate(step: int, steps: int) -> np.float32:
  """The learning rate of a step: half a cosine, from its largest value to a fiftieth of it."""
  return np.float32(_RATE * (0.02 + 0.49 * (1.0 + np.cos(np.pi * step / max(steps, 1)))))


@partial(jax.jit, static_argnums=0)
def _step(
  net: DenseEncoder, params: Any, state: Any, folder: _Folder, rate: np.float32, key: PRNGKeyArray
) -> tuple[Any, Any]:
  """One step of Adam on a batch sampled here; compiled once for all folders of one shape."""
  chosen, key = jax.random.split(key)
  count = len(folder.images)
  rows = jax.random.choice(chosen, count, (min(_BATCH, count),), replace=False)
  batch = jax.tree.map(lambda x: x[rows], folder)
  gradient = jax.grad(partial(_loss, net))(params, batch, key)
  updates, state = _ADAM.update(gradient, state)
  return jax.tree.map(lambda p, u: p - rate * u, params, updates), state


@partial(jax.jit, static_argnums=(0, 1))
def _extract(net: DenseEncoder, size: int, params: Any, images: Array) -> Array:
  """The features of images of any size."""
  shape = (images.shape[0], size, size, 3)
  if images.shape != shape:
    images = jnp.clip(jax.image.resize(images, shape, "bilinear"), 0.0, 1.0)
  return _maps(net, params, images)


def _prepare(images: np.ndarray, masks: np.ndarray, size: int) -> _Folder:
  """The arrays at the network's size, and what is derived from the masks."""
  if size < 4 * STRIDE or size % STRIDE:
    raise ValueError(
      f"found a size of {size}; expected a multiple of {STRIDE}, {4 * STRIDE} or more"
    )
  # Shrinking loses thin masks, so that emptiness is tested afterwards.
  shape = (len(images), size, size)
  resized = np.asarray(jax.image.resize(jnp.asarray(masks, jnp.float32), shape, "bilinear"))
  boxes = [mask_box(mask) for mask in resized]
  kept = np.array([i for i, box in enumerate(boxes) if box is not None], np.int64)
  if len(kept) < 2:
    raise ValueError(f"found {len(kept)} images with an object; expected 2 or more to learn from")
  depths = np.stack([distance_transform_edt(resized[i] >= 0.5) for i in kept])
  side = size // _PICK
  cells = resized[kept].reshape(len(kept), side, _PICK, side, _PICK).mean(axis=(2, 4))
  shares = np.cumsum(cells.reshape(len(kept), -1), axis=1, dtype=np.float64)
  kept_images = jnp.asarray(images[kept], jnp.float32)
  return _Folder(
    images=jnp.clip(jax.image.resize(kept_images, (len(kept), size, size, 3), "bilinear"), 0, 1),
    masks=jnp.clip(jnp.asarray(resized[kept]), 0.0, 1.0),
    cells=jnp.asarray(shares / shares[:, -1:], jnp.float32),
    boxes=jnp.asarray(np.array([boxes[i] for i in kept]) * (2.0 / size) - 1.0, jnp.float32),
    depths=jnp.asarray(depths / depths.max(axis=(1, 2), keepdims=True), jnp.float32),
  )


def _loss(net: DenseEncoder, params: Any, batch: _Folder, key: PRNGKeyArray) -> Array:
  """What training lowers, for one batch of images."""
  # Few calls for many random numbers: each is slow to compile.
  point_key, view_key = jax.random.split(key)
  points = _sample_points(batch, jax.random.uniform(point_key, (len(batch.images), _POINTS, 3)))
  both = jax.tree.map(lambda x: jnp.concatenate([x, x]), batch)
  draws = jax.random.uniform(view_key, (len(both.images), _DRAWS))
  view = _view(draws[:, :6])
  images = _render_view(both, view, draws[:, 6:])
  shifted = jnp.concatenate([points, points]) - view.move[:, None]
  places = jnp.einsum("bij,bnj->bni", _inverse(view.turn), shifted)
  found = _unit(bilinear_sample(_maps(net, params["net"], images), places))
  first, second = jnp.split(found, 2)
  # What left the frame of either view is not compared.
  inside = jnp.all(jnp.abs(places) < 0.95, axis=-1)
  in_both = jnp.logical_and(*jnp.split(inside, 2)).astype(found.dtype)
  contrast = contrastive_loss(first, second, points, in_both)
  guess = found @ params["place"]["kernel"] + params["place"]["bias"]
  error = jnp.sum(jnp.square(guess - _place_in_mask(both, jnp.concatenate([points, points]))), -1)
  weights = jnp.concatenate([in_both, in_both])
  place = jnp.sum(weights * error) / jnp.maximum(2.0 * jnp.sum(in_both), 1.0)
  return _CONTRAST * contrast + _PLACE * place


@checked
def contrastive_loss(
  first: Float[Array, "B M C"],
  second: Float[Array, "B M C"],
  points: Float[Array, "B M 2"],
  weight: Float[Array, "B M"],
) -> Float[Array, ""]:
  """InfoNCE: a point of one view against all of the image's points in the other view.

  Args:
    first: features of length one in one view.
    second: of the same points in the other view.
    points: positions in [-1, 1]; near ones are no negatives of each other.
    weight: 1 for a point inside of both views, else 0.

  Returns:
    The mean cross-entropy over the points that count, of both directions; 0 without any.
  """
  similarity = jnp.einsum("bmc,bnc->bmn", first, second) / _TEMPERATURE
  gap = jnp.sum(jnp.square(points[:, :, None] - points[:, None]), axis=-1)
  same = jnp.eye(points.shape[1], dtype=bool)[None]
  skipped = ((gap < _NEAR**2) & ~same) | (weight[:, None, :] == 0.0) & ~same
  total = jnp.zeros((), first.dtype)
  for logits in (similarity, similarity.swapaxes(1, 2)):
    kept = jnp.where(skipped, -jnp.inf, logits)
    right = jnp.diagonal(logits, axis1=1, axis2=2)
    total += jnp.sum(weight * (jax.nn.logsumexp(kept, axis=-1) - right))
  return total / (2.0 * jnp.maximum(jnp.sum(weight), 1.0))


def _maps(net: DenseEncoder, params: Any, images: Array) -> Array:
  maps: Any = net.apply({"params": params}, images, train=True)
  return maps


def _sample_points(batch: _Folder, draws: Float[Array, "B M 3"]) -> Float[Array, "B M 2"]:
  """Random points of the objects, (x, y) in [-1, 1], from uniform draws."""
  side = batch.images.shape[1] // _PICK
  cells = jnp.sum(batch.cells[:, None] <= draws[..., :1], axis=-1)
  cells = jnp.minimum(cells, side * side - 1)
  corner = jnp.stack([cells % side, cells // side], axis=-1).astype(jnp.float32)
  return (corner + draws[..., 1:]) * (2.0 / side) - 1.0


def _view(draws: Float[Array, "B 6"]) -> _View:
  """A turn, stretch and shift of each image, and a mirroring of every second."""
  signed = 2.0 * draws - 1.0
  angle = _TURN * signed[:, 0]
  sign = jnp.sign(signed[:, 1:2])
  scale = jnp.exp(_STRETCH * signed[:, 2:4])
  scale = jnp.concatenate([scale[:, :1] * jnp.where(sign == 0.0, 1.0, sign), scale[:, 1:]], axis=1)
  cosine, sine = jnp.cos(angle), jnp.sin(angle)
  turn = jnp.stack([jnp.stack([cosine, -sine], -1), jnp.stack([sine, cosine], -1)], -2)
  return _View(turn * scale[:, None], _MOVE * signed[:, 4:6])


def _render_view(
  batch: _Folder, view: _View, draws: Float[Array, "B R"]
) -> Float[Array, "B S S 3"]:
  """The images resampled in a view, recoloured; half of them before another background."""
  count, size = batch.images.shape[:2]
  centers = (jnp.arange(size, dtype=jnp.float32) + 0.5) * (2.0 / size) - 1.0
  grid = jnp.stack(jnp.meshgrid(centers, centers), axis=-1).reshape(1, -1, 2)
  points = jnp.einsum("bij,anj->bni", view.turn, grid) + view.move[:, None]
  planes = jnp.concatenate([batch.images, batch.masks[..., None]], axis=-1)
  sampled = bilinear_sample(planes, points).reshape(count, size, size, 4)
  image, mask = sampled[..., :3], sampled[..., 3:]
  draws = draws[:, None, None]
  darker, plain, swapped, saturation = (draws[..., i : i + 1] for i in range(4))
  color, gain, lift = draws[..., 4:7], 2.0 * draws[..., 7:10] - 1.0, 2.0 * draws[..., 10:13] - 1.0
  other = jnp.roll(batch.images, 1, axis=0) * (0.5 + 0.5 * darker)
  background = jnp.where(plain < 0.5, color, other)
  composed = mask * image + (1.0 - mask) * background
  image = jnp.where(swapped < 0.5, composed, image)
  grey = jnp.mean(image, axis=-1, keepdims=True)
  image = grey + (image - grey) * (1.3 * saturation)
  return jnp.clip(image * jnp.exp(_RECOLOR * gain) + 0.5 * _RECOLOR * lift, 0.0, 1.0)


def _inverse(matrix: Float[Array, "B 2 2"]) -> Float[Array, "B 2 2"]:
  a, b, c, d = (matrix[:, i, j] for i in (0, 1) for j in (0, 1))
  adjugate = jnp.stack([jnp.stack([d, -b], -1), jnp.stack([-c, a], -1)], -2)
  return adjugate / (a * d - b * c)[:, None, None]


def _place_in_mask(batch: _Folder, points: Float[Array, "B M 2"]) -> Float[Array, "B M 3"]:
  """Height, distance from the middle line and depth of points: alike in a mirrored object."""
  low, high = batch.boxes[:, None, :2], batch.boxes[:, None, 2:]
  place = (points - (low + high) / 2.0) * 2.0 / (high - low)
  depth = bilinear_sample(batch.depths[..., None], points)[..., 0]
  return jnp.stack([place[..., 1], 2.0 * jnp.abs(place[..., 0]) - 1.0, 2.0 * depth - 1.0], axis=-1)


def _unit(x: Array) -> Array:
  return x / jnp.sqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + _TINY)
