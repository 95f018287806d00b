"""What one step of the part network minimises."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, PRNGKeyArray

from umr_jax.config.settings import PartWeights
from umr_jax.parts.concentration import concentration_loss
from umr_jax.parts.equivariance import equivariance_loss, landmark_loss
from umr_jax.parts.semantic_basis import orthonormality_loss, semantic_loss
from umr_jax.parts.supervision import silhouette_loss, supervision_loss
from umr_jax.parts.warp import WarpRanges, draw_warps, warp_images, warp_logits, warp_maps
from umr_jax.train.augment import color_jitter

# Of the published brightness and contrast; channels and saturation change as much here.
COLOR = 0.3


@struct.dataclass
class PartBatch:
  """B photographs, and what is known of them at the size of the logits; JAX's arrays or NumPy's."""

  images: Float[Any, "B S S 3"]
  mask: Float[Any, "B h h"]
  index: Int[Any, "B"]
  targets: Float[Any, "B h h P1"] | None = None
  features: Float[Any, "B f f C"] | None = None


def part_objective(
  predict: Callable[[Array], tuple[Array, Any]],
  batch: PartBatch,
  basis: Float[Array, "P C"] | None,
  key: PRNGKeyArray,
  *,
  weights: PartWeights,
  ranges: WarpRanges,
) -> tuple[Float[Array, ""], tuple[dict[str, Float[Array, ""]], Any]]:
  """The weighted sum of the terms, over the photographs and a warped, recoloured copy of each.

  Args:
    predict: photographs -> logits, and whatever the network changed beside them.
    batch: photographs.
    basis: the features that the parts have, where there are features.
    key: of the step.
    weights: of the terms.
    ranges: of the warps.

  Returns:
    The sum; the terms by name, unweighted and averaged over images; what `predict` gave.

  Source: Hung et al. 2019 (SCOPS), section 3. Departs: what is known of the parts is asked of both
    copies.
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
    terms["supervision"] = supervision_loss(both, known, jnp.ones(len(both), both.dtype))
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
