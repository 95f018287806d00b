"""Unseen views must look like seen ones: an adversary tells them apart, and teaches the shape."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from umr_jax.geometry import camera
from umr_jax.random import per_image_keys
from umr_jax.types import checked


@jax.custom_vjp
def reverse_gradient(x: Array, strength: float) -> Array:
  """The values as they are; their gradient comes back multiplied by -strength.

  Source: Ganin and Lempitsky 2015.
  """
  del strength
  return x


def _forward(x: Array, strength: float) -> tuple[Array, float]:
  return x, strength


def _backward(strength: float, gradient: Array) -> tuple[Array, None]:
  return -strength * gradient, None


reverse_gradient.defvjp(_forward, _backward)


@checked
def adversarial_loss(
  judge: Callable[[Array], Array],
  *,
  real: Float[Array, "B H W C"],
  fake: Float[Array, "B H W C"],
  reversal: float,
) -> Float[Array, "B"]:
  """Binary cross-entropy of the judge's answers; what is judged gets the opposite gradient.

  One loss and one step train both: the judge to tell the images apart, and whatever made `fake` to
  be taken for real. Which real image stands beside which fake one does not matter to the sum, so
  that each is compared with all others of its batch.

  Args:
    judge: from images to the logits that they are real.
    real: gets no gradient.
    fake: gets the gradient times -reversal.
    reversal: how much the judged learn, against the judge.

  Returns:
    One value per image in nats, the mean of both answers' cross-entropies: log 2 for a judge that
    cannot tell.

  Source: Li et al. 2020, supplementary equation 1, with the released gradient reversal.
  """
  logits = judge(
    jnp.concatenate([jax.lax.stop_gradient(real), reverse_gradient(fake, reversal)], axis=0)
  )
  on_real, on_fake = jnp.split(logits, 2)
  return 0.5 * (jax.nn.softplus(-on_real) + jax.nn.softplus(on_fake))


@checked
def unseen_cameras(
  cameras: Float[Array, "B 7"], index: Int[Array, "B"], key: PRNGKeyArray
) -> Float[Array, "B 7"]:
  """Each image's camera, turned by 0 to 179 whole degrees about its vertical; without gradient.

  Args:
    cameras: as predicted.
    index: of each image in its split; its draw does not depend on the rest of the batch.
    key: of the step.

  Source: Li et al. 2020, supplementary 2.2; the range is the released code's. A silhouette from
    behind is the mirror image of the one from the front, so that half a turn is all there is.
  """
  keys = per_image_keys(key, index)
  degrees = jax.vmap(lambda k: jax.random.randint(k, (), 0, 180))(keys)
  return camera.rotate_view(jax.lax.stop_gradient(cameras), degrees)
