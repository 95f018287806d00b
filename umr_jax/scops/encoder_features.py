"""Features without any weights: a network trained, from nothing, on the folder's own images.

It learns to find a place of the object again in another view of the same photograph, turned,
stretched, mirrored, recoloured and before another background, and to say how high and how far from
the middle of its mask that place lies. The first makes features of different places different, the
second makes those of one place in different photographs alike.
"""

import hashlib
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray
from scipy.ndimage import distance_transform_edt

from umr_jax.data.example import mask_box
from umr_jax.geometry.sampling import bilinear_sample
from umr_jax.models.dense_encoder import STRIDE, DenseEncoder
from umr_jax.models.initialize import initialize
from umr_jax.scops.features import Features
from umr_jax.types import checked

# Raised whenever the same images would give other features.
_VERSION = 1
_BATCH = 8
_POINTS = 64  # places of each image that are found again
_RATE = 1e-3
_TEMPERATURE = 0.1
# Weights of finding places again, and of telling where in the mask they lie.
_CONTRAST, _PLACE = 0.3, 5.0
# Places closer than this, in half widths of the image, are neither the same nor different.
_NEAR = 0.25
# How two views of a photograph may differ.
_TURN = np.deg2rad(25.0).astype(np.float32)
_STRETCH = 0.25  # of the logarithm
_MOVE = 0.15
_RECOLOR = 0.3
_PICK = 4  # places are drawn from cells of so many pixels
_TINY = 1e-6


class _Folder(NamedTuple):
  """The images, and what training needs to know of them."""

  images: Float[Array, "N S S 3"]
  masks: Float[Array, "N S S"]
  cells: Float[Array, "N Q"]  # logarithms of how much object a cell holds
  boxes: Float[Array, "N 4"]  # of the masks: x0, y0, x1, y1 in [-1, 1]
  depths: Float[Array, "N S S"]  # distance to the mask's edge, the largest being 1


class _View(NamedTuple):
  """An affine map from a view's places to the photograph's: p = turn @ q + move."""

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
    size: pixels per side of what the network sees, in training and after it; a multiple of 8.
    steps: 500 are enough for a folder of some hundred images.
    seed: not negative.

  Returns:
    The features: 64 channels, not negative, of length one, at an eighth of `size`.

  Raises:
    ValueError: for fewer than two objects, or a size that is no multiple of 8.

  Source: van den Oord et al. 2018 (InfoNCE) between places, as dense contrastive learning has it.
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
  optimizer = optax.adam(partial(_rate, steps))
  state = optimizer.init(params)
  count = min(_BATCH, len(folder.images))

  @jax.jit
  def step(params: Any, state: Any, folder: _Folder, key: PRNGKeyArray) -> tuple[Any, Any]:
    chosen, key = jax.random.split(key)
    rows = jax.random.choice(chosen, len(folder.images), (count,), replace=False)
    batch = jax.tree.map(lambda x: x[rows], folder)
    gradient = jax.grad(partial(_loss, net))(params, batch, key)
    updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state

  key = jax.random.key(seed)
  for i in range(steps):
    params, state = step(params, state, folder, jax.random.fold_in(key, i))

  @jax.jit
  def extract(params: Any, images: Array) -> Array:
    shape = (images.shape[0], size, size, 3)
    if images.shape != shape:
      images = jnp.clip(jax.image.resize(images, shape, "bilinear"), 0.0, 1.0)
    return _maps(net, params, images)

  return Features(
    partial(extract, params["net"]), "encoder", _fingerprint(images, masks, size, steps, seed)
  )


def _rate(steps: int, step: Array) -> Array:
  """The learning rate of a step: half a cosine, from its largest value to a fiftieth of it."""
  done = jnp.asarray(step, jnp.float32) / max(steps, 1)
  return _RATE * (0.02 + 0.49 * (1.0 + jnp.cos(jnp.pi * done)))


def _prepare(images: np.ndarray, masks: np.ndarray, size: int) -> _Folder:
  """The arrays at the network's size, and what is derived from the masks."""
  if size < 4 * STRIDE or size % STRIDE:
    raise ValueError(
      f"found a size of {size}; expected a multiple of {STRIDE}, {4 * STRIDE} or more"
    )
  # Shrinking loses thin masks, so that emptiness is judged afterwards.
  shape = (len(images), size, size)
  resized = np.asarray(jax.image.resize(jnp.asarray(masks, jnp.float32), shape, "bilinear"))
  boxes = [mask_box(mask) for mask in resized]
  kept = np.array([i for i, box in enumerate(boxes) if box is not None], np.int64)
  if len(kept) < 2:
    raise ValueError(f"found {len(kept)} images with an object; expected 2 or more to learn from")
  depths = np.stack([distance_transform_edt(resized[i] >= 0.5) for i in kept])
  side = size // _PICK
  cells = resized[kept].reshape(len(kept), side, _PICK, side, _PICK).mean(axis=(2, 4))
  photographs = jnp.asarray(images[kept], jnp.float32)
  return _Folder(
    images=jnp.clip(jax.image.resize(photographs, (len(kept), size, size, 3), "bilinear"), 0, 1),
    masks=jnp.clip(jnp.asarray(resized[kept]), 0.0, 1.0),
    cells=jnp.log(jnp.asarray(np.maximum(cells, _TINY).reshape(len(kept), -1))),
    boxes=jnp.asarray(np.array([boxes[i] for i in kept]) * (2.0 / size) - 1.0, jnp.float32),
    depths=jnp.asarray(depths / depths.max(axis=(1, 2), keepdims=True), jnp.float32),
  )


def _loss(net: DenseEncoder, params: Any, batch: _Folder, key: PRNGKeyArray) -> Array:
  """What training lowers, for one batch of photographs."""
  keys = jax.random.split(key, 5)
  points = _draw_points(batch, keys[0])
  views = [_draw_view(k, len(batch.images)) for k in keys[1:3]]
  pictures = [_look(batch, v, k) for v, k in zip(views, keys[3:], strict=True)]
  places = [
    jnp.einsum("bij,bnj->bni", jnp.linalg.inv(v.turn), points - v.move[:, None]) for v in views
  ]
  maps = _maps(net, params["net"], jnp.concatenate(pictures))
  found = _unit(bilinear_sample(maps, jnp.concatenate(places)))
  first, second = jnp.split(found, 2)
  # What left the frame of either view is not compared.
  seen = jnp.all(jnp.abs(jnp.stack(places)) < 0.95, axis=(0, -1)).astype(first.dtype)
  contrast = contrastive_loss(first, second, points, seen)
  target = _place_in_mask(batch, points)
  weight = seen[..., None] / jnp.maximum(jnp.sum(seen), 1.0)
  guesses = (z @ params["place"]["kernel"] + params["place"]["bias"] for z in (first, second))
  place = sum((jnp.sum(weight * jnp.square(g - target)) for g in guesses), jnp.float32(0.0))
  return _CONTRAST * contrast + _PLACE * 0.5 * place


@checked
def contrastive_loss(
  first: Float[Array, "B M C"],
  second: Float[Array, "B M C"],
  points: Float[Array, "B M 2"],
  weight: Float[Array, "B M"],
) -> Float[Array, ""]:
  """How badly a place of one view is told from an image's other places in the other view.

  Args:
    first: features of length one in one view.
    second: of the same places in the other view.
    points: the places, in [-1, 1]; near ones are not held against each other.
    weight: 1 for a place that both views show, else 0.

  Returns:
    The mean cross-entropy over the places that count, of both directions; 0 without any.
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


def _draw_points(batch: _Folder, key: PRNGKeyArray) -> Float[Array, "B M 2"]:
  """Random places of the objects, (x, y) in [-1, 1]."""
  cell_key, offset_key = jax.random.split(key)
  count, side = len(batch.images), batch.images.shape[1] // _PICK
  cells: Int[Array, "B M"] = jax.random.categorical(
    cell_key, batch.cells[:, None], shape=(count, _POINTS)
  )
  corner = jnp.stack([cells % side, cells // side], axis=-1).astype(jnp.float32)
  offset = jax.random.uniform(offset_key, (count, _POINTS, 2))
  return (corner + offset) * (2.0 / side) - 1.0


def _draw_view(key: PRNGKeyArray, count: int) -> _View:
  """A random turn, stretch and shift of each image, and a mirroring of every second."""
  keys = jax.random.split(key, 4)
  angle = jax.random.uniform(keys[0], (count,), minval=-_TURN, maxval=_TURN)
  stretch = jnp.exp(jax.random.uniform(keys[1], (count, 2), minval=-_STRETCH, maxval=_STRETCH))
  sign = jnp.where(jax.random.bernoulli(keys[2], 0.5, (count,)), -1.0, 1.0)
  cosine, sine = jnp.cos(angle), jnp.sin(angle)
  turn = jnp.stack([jnp.stack([cosine, -sine], -1), jnp.stack([sine, cosine], -1)], -2)
  scale = stretch * jnp.stack([sign, jnp.ones_like(sign)], axis=-1)
  move = jax.random.uniform(keys[3], (count, 2), minval=-_MOVE, maxval=_MOVE)
  return _View(turn * scale[:, None], move)


def _look(batch: _Folder, view: _View, key: PRNGKeyArray) -> Float[Array, "B S S 3"]:
  """The pictures that a view shows, recoloured; half of them before another background."""
  keys = jax.random.split(key, 7)
  count, size = batch.images.shape[:2]
  centers = (jnp.arange(size, dtype=jnp.float32) + 0.5) * (2.0 / size) - 1.0
  grid = jnp.stack(jnp.meshgrid(centers, centers), axis=-1).reshape(1, -1, 2)
  points = jnp.einsum("bij,anj->bni", view.turn, grid) + view.move[:, None]
  planes = jnp.concatenate([batch.images, batch.masks[..., None]], axis=-1)
  seen = bilinear_sample(planes, points).reshape(count, size, size, 4)
  picture, mask = seen[..., :3], seen[..., 3:]
  one = (count, 1, 1, 1)
  plain = jnp.broadcast_to(jax.random.uniform(keys[0], (count, 1, 1, 3)), picture.shape)
  other = jnp.roll(batch.images, 1, axis=0) * jax.random.uniform(keys[1], one, minval=0.5)
  background = jnp.where(jax.random.bernoulli(keys[2], 0.5, one), plain, other)
  swapped = mask * picture + (1.0 - mask) * background
  picture = jnp.where(jax.random.bernoulli(keys[3], 0.5, one), swapped, picture)
  gain = jax.random.uniform(keys[4], (count, 1, 1, 3), minval=-_RECOLOR, maxval=_RECOLOR)
  lift = jax.random.uniform(keys[5], (count, 1, 1, 3), minval=-_RECOLOR, maxval=_RECOLOR)
  grey = jnp.mean(picture, axis=-1, keepdims=True)
  picture = grey + (picture - grey) * jax.random.uniform(keys[6], one, maxval=1.3)
  return jnp.clip(picture * jnp.exp(gain) + 0.5 * lift, 0.0, 1.0)


def _place_in_mask(batch: _Folder, points: Float[Array, "B M 2"]) -> Float[Array, "B M 3"]:
  """Height, distance from the middle line and depth of places: alike in a mirrored object."""
  low, high = batch.boxes[:, None, :2], batch.boxes[:, None, 2:]
  place = (points - (low + high) / 2.0) * 2.0 / (high - low)
  depth = bilinear_sample(batch.depths[..., None], points)[..., 0]
  return jnp.stack([place[..., 1], 2.0 * jnp.abs(place[..., 0]) - 1.0, 2.0 * depth - 1.0], axis=-1)


def _unit(x: Array) -> Array:
  return x / jnp.sqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + _TINY)


def _fingerprint(images: np.ndarray, masks: np.ndarray, size: int, steps: int, seed: int) -> str:
  digest = hashlib.sha256(f"encoder {_VERSION} {size} {steps} {seed} {images.shape}".encode())
  for array in (images, masks):
    digest.update(np.ascontiguousarray(array, np.float32).tobytes())
  return digest.hexdigest()[:16]
