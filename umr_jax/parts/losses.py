"""The losses of SCOPS, a function per equation, and what one step of the part network minimises.

Source: Hung et al. 2019 (SCOPS), section 3."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, PRNGKeyArray

from umr_jax import types
from umr_jax.config.settings import PartWeights
from umr_jax.parts.warp import WarpRanges, draw_warps, warp_images, warp_logits, warp_maps
from umr_jax.train.augment import color_jitter
from umr_jax.types import Variables, checked

# Added to every pixel: a part that is nowhere lies in the middle, without a division by zero.
_LEAST = 1e-3
# The published loss is divided by the batch size twice; with this one its weight means the same at
# every batch size.
_PUBLISHED_BATCH = 6.0


def spread(
  probs: Float[Array, "B h w P"],
) -> tuple[Float[Array, "B P 2"], Float[Array, "B P 2"]]:
  """The centre and the variance of every part, as (x, y), of maps that reach from -1 to 1."""
  height, width = probs.shape[1:3]
  density = probs + _LEAST
  density = density / jnp.sum(density, axis=(1, 2), keepdims=True)
  x, y = ((2.0 * jnp.arange(n, dtype=probs.dtype) + 1.0 - n) / n for n in (width, height))
  columns, rows = jnp.sum(density, axis=1), jnp.sum(density, axis=2)
  center, variance = [], []
  for marginal, place in ((columns, x), (rows, y)):
    mean = jnp.einsum("bnp,n->bp", marginal, place)
    gap = place[None, :, None] - mean[:, None]
    center.append(mean)
    variance.append(jnp.sum(marginal * jnp.square(gap), axis=1))
  return jnp.stack(center, axis=-1), jnp.stack(variance, axis=-1)


@checked
def concentration_loss(probs: Float[Array, "B h w P1"]) -> Float[Array, "B"]:
  """How far the parts of each image spread around their centres.

  Args:
    probs: softmax of the logits, background first; the background may spread.

  Returns:
    The sum over parts of the variances in x and y, in half images squared, over 6.

  Source: Hung et al. 2019 (SCOPS), section 3.2. Departs: the released loss divides by the batch
    size once more than a mean does; this one divides by the published batch size.
  """
  _, variance = spread(probs[..., 1:])
  return jnp.sum(variance, axis=(1, 2)) / _PUBLISHED_BATCH


@checked
def equivariance_loss(
  *, logits: Float[Array, "B h w P1"], target: Float[Array, "B h w P1"]
) -> Float[Array, "B"]:
  """How much the prediction on a warped image differs from the warped prediction.

  Args:
    logits: predicted on the warped and recoloured image.
    target: predicted on the image itself, then warped. No gradient flows into it.

  Returns:
    The Kullback-Leibler divergence from softmax(target) to softmax(logits), averaged over pixels
    and channels.

  Source: Hung et al. 2019 (SCOPS), section 3.3, and the released averaging.
  """
  expected = jax.nn.log_softmax(jax.lax.stop_gradient(target), axis=-1)
  found = jax.nn.log_softmax(logits, axis=-1)
  return jnp.mean(jnp.exp(expected) * (expected - found), axis=(1, 2, 3))


@checked
def landmark_loss(
  *, logits: Float[Array, "B h w P1"], warped: Float[Array, "B h w P1"]
) -> Float[Array, "B"]:
  """How far the parts' centres lie apart in the two predictions of `equivariance_loss`.

  Args:
    logits: predicted on the warped and recoloured image.
    warped: predicted on the image itself, then warped. Gradients flow into both.

  Returns:
    The squared gap, in half images squared, averaged over parts, x and y.

  Source: Hung et al. 2019 (SCOPS), section 3.3.
  """
  found, _ = spread(jax.nn.softmax(logits, axis=-1)[..., 1:])
  expected, _ = spread(jax.nn.softmax(warped, axis=-1)[..., 1:])
  return jnp.mean(jnp.square(found - expected), axis=(1, 2))


# Added to squared lengths, so that a row of zeros has a gradient.
_EPSILON = 1e-8


@checked
def semantic_loss(
  *,
  probs: Float[Array, "B h w P1"],
  features: Float[Array, "B h w C"],
  mask: Float[Array, "B h w"],
  basis: Float[Array, "P C"],
) -> Float[Array, "B"]:
  """How badly the parts explain the features of their pixels.

  Args:
    probs: softmax of the logits, background first; the background explains nothing.
    features: of a frozen network.
    mask: of the object; outside, features count as zero.
    basis: the features that the parts have; learned. Where negative, read as zero.

  Returns:
    The squared error of each image, averaged over pixels and channels.

  Source: Hung et al. 2019 (SCOPS), section 3.4.
  """
  explained = jnp.einsum("bhwp,pc->bhwc", probs[..., 1:], jax.nn.relu(basis))
  return jnp.mean(jnp.square(explained - features * mask[..., None]), axis=(1, 2, 3))


@checked
def orthonormality_loss(basis: Float[Array, "P C"]) -> Float[Array, ""]:
  """How much the parts' features resemble each other: one value, not one per image.

  Args:
    basis: as in `semantic_loss`; where negative, read as zero.

  Returns:
    The sum of the squares of W W^T - I, of W with rows of length one.

  Source: Hung et al. 2019 (SCOPS), section 3.4.
  """
  used = jax.nn.relu(basis)
  length = jnp.sqrt(jnp.sum(jnp.square(used), axis=-1, keepdims=True) + _EPSILON)
  rows = used / length
  return jnp.sum(jnp.square(rows @ rows.T - jnp.eye(len(basis), dtype=basis.dtype)))


@checked
def supervision_loss(
  logits: Float[Array, "B h w P1"], targets: Float[Array, "B h w P1"]
) -> Float[Array, "B"]:
  """Cross-entropy of the prediction to soft maps.

  Args:
    logits: background first.
    targets: at each pixel they sum to 1, or to 0 where nothing is known, and anything between.

  Returns:
    The cross-entropy, averaged over the pixels of which something is known; zero for an
    image without any.

  Source: Li et al. 2020, supplementary 1, where parts of reconstructions supervise the network; its
    loss is not given.
  """
  mass = jnp.sum(targets, axis=(1, 2, 3))
  entropy = -jnp.sum(targets * jax.nn.log_softmax(logits, axis=-1), axis=(1, 2, 3))
  return entropy / jnp.maximum(mass, 1.0)


@checked
def silhouette_loss(
  logits: Float[Array, "B h w P1"], mask: Float[Array, "B h w"]
) -> Float[Array, "B"]:
  """Cross-entropy of background and object to the silhouette: parts stay on the object.

  Args:
    logits: background first; all other channels together are the object.
    mask: of the object, in [0, 1].

  Returns:
    One value per image, averaged over pixels.

  Source: Li et al. 2020, supplementary 1, give SCOPS the silhouettes in place of saliency, which
    enters by the features alone. Departs: here they also supervise the network directly.
  """
  inside = jax.nn.logsumexp(logits[..., 1:], axis=-1)
  margin = inside - logits[..., 0]
  entropy = mask * jax.nn.softplus(-margin) + (1.0 - mask) * jax.nn.softplus(margin)
  return jnp.mean(entropy, axis=(1, 2))


# Of the published brightness and contrast; channels and saturation change as much here.
COLOR = 0.3


@struct.dataclass
class PartBatch:
  """B images, and what is known of them at the size of the logits; JAX's arrays or NumPy's."""

  images: Float[types.Array, "B S S 3"]
  mask: Float[types.Array, "B h h"]
  index: Int[types.Array, "B"]
  targets: Float[types.Array, "B h h P1"] | None = None
  features: Float[types.Array, "B f f C"] | None = None


def part_objective(
  predict: Callable[[Array], tuple[Array, Variables]],
  batch: PartBatch,
  basis: Float[Array, "P C"] | None,
  key: PRNGKeyArray,
  *,
  weights: PartWeights,
  ranges: WarpRanges,
) -> tuple[Float[Array, ""], tuple[dict[str, Float[Array, ""]], Variables]]:
  """The weighted sum of the terms, over the images and a warped, recoloured copy of each.

  Args:
    predict: images -> logits, and whatever the network changed beside them.
    batch: images.
    basis: the features that the parts have, where there are features.
    key: of the step.
    weights: of the terms.
    ranges: of the warps.

  Returns:
    The sum; the terms by name, unweighted and averaged over images; and what `predict` returned
    beside the logits.

  Source: Hung et al. 2019 (SCOPS), section 3. Departs: both copies are supervised.
  """
  warp_key, color_key = jax.random.split(key)
  matrix = draw_warps(batch.index, warp_key, ranges)
  moved = color_jitter(warp_images(batch.images, matrix), batch.index, color_key, COLOR)
  both, changed = predict(jnp.concatenate([batch.images, moved]))
  logits, moved_logits = jnp.split(both, 2)
  mask = jnp.concatenate([batch.mask, warp_maps(batch.mask[..., None], matrix)[..., 0]])

  terms = {"silhouette": silhouette_loss(both, mask)}
  if weights.supervision and batch.targets is not None:
    targets = jnp.concatenate([batch.targets, warp_maps(batch.targets, matrix)])
    known = targets * mask[..., None]
    terms["supervision"] = supervision_loss(both, known)
  if weights.equivariance or weights.landmark:
    warped = warp_logits(logits, matrix)
    if weights.equivariance:
      terms["equivariance"] = equivariance_loss(logits=moved_logits, target=warped)
    if weights.landmark:
      terms["landmark"] = landmark_loss(logits=moved_logits, warped=warped)
  probs = jax.nn.softmax(logits, axis=-1)
  if weights.concentration:
    terms["concentration"] = concentration_loss(probs)
  if weights.semantic and batch.features is not None and basis is not None:
    shape = (*probs.shape[:3], batch.features.shape[-1])
    features = jax.image.resize(batch.features, shape, "linear", antialias=False)
    terms["semantic"] = semantic_loss(probs=probs, features=features, mask=batch.mask, basis=basis)
    if weights.orthonormality:
      terms["orthonormality"] = orthonormality_loss(basis)
  means = {name: jnp.mean(value) for name, value in terms.items()}
  scale = {"silhouette": 1.0, **weights._asdict()}
  total = sum((scale[name] * value for name, value in means.items()), jnp.zeros(()))
  return total, ({"total": total, **means}, changed)
