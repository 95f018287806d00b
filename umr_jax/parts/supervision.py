"""What is known of the parts beforehand: maps of some images, and the silhouettes of all."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.types import checked


@checked
def supervision_loss(
  logits: Float[Array, "B h w P1"],
  targets: Float[Array, "B h w P1"],
  weight: Float[Array, "B"],
) -> Float[Array, "B"]:
  """Cross-entropy of the prediction to soft maps.

  Args:
    logits: background first.
    targets: at each pixel they sum to 1, or to 0 where nothing is known, and anything between.
    weight: of each image.

  Returns:
    The weighted cross-entropy, averaged over the pixels of which something is known; zero for an
    image without any.

  Source: Li et al. 2020, supplementary 1, where parts of reconstructions teach the part network;
    its loss is not given.
  """
  mass = jnp.sum(targets, axis=(1, 2, 3))
  entropy = -jnp.sum(targets * jax.nn.log_softmax(logits, axis=-1), axis=(1, 2, 3))
  return weight * entropy / jnp.maximum(mass, 1.0)


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
    enters by the features alone. Departs: here it also teaches the network directly.
  """
  inside = jax.nn.logsumexp(logits[..., 1:], axis=-1)
  margin = inside - logits[..., 0]
  entropy = mask * jax.nn.softplus(-margin) + (1.0 - mask) * jax.nn.softplus(margin)
  return jnp.mean(entropy, axis=(1, 2))
