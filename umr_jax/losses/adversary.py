"""Adversarial training: renders from random views should resemble those from predicted views."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from umr_jax.geometry import camera
from umr_jax.geometry.sampling import average_pool, choose_rows
from umr_jax.losses.renders import Renders
from umr_jax.losses.spec import ObjectiveSpec
from umr_jax.models.discriminator import DiscriminatorFn
from umr_jax.random import per_image_keys
from umr_jax.types import Batch, checked


@jax.custom_vjp
def reverse_gradient(x: Array, strength: float) -> Array:
  """The values as they are; their gradient comes back multiplied by -strength.

  Args:
    x: any values.
    strength: how much of the gradient is passed on, reversed.

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
  discriminator: DiscriminatorFn,
  *,
  real: Float[Array, "B H W C"],
  fake: Float[Array, "B H W C"],
  reversal: float,
) -> Float[Array, "B"]:
  """Binary cross-entropy of the discriminator; the fakes get the opposite gradient.

  One loss and one step train both: the discriminator to distinguish the images, and whatever made
  `fake` to have it classified as real. Which real image stands beside which fake one does not
  matter to the sum, so that each is compared with all others of its batch.

  Args:
    discriminator: from images to the logits that they are real.
    real: gets no gradient.
    fake: gets the gradient times -reversal.
    reversal: the weight of the reversed gradient.

  Returns:
    One value per image in nats, the mean of the cross-entropies of both classifications: log 2 for
    a discriminator that cannot tell.

  Source: Li et al. 2020, supplementary equation 1, with the released gradient reversal.
  """
  logits = discriminator(
    jnp.concatenate([jax.lax.stop_gradient(real), reverse_gradient(fake, reversal)], axis=0)
  )
  on_real, on_fake = jnp.split(logits, 2)
  return 0.5 * (jax.nn.softplus(-on_real) + jax.nn.softplus(on_fake))


@checked
def random_views(
  cameras: Float[Array, "B 7"], index: Int[Array, "B"], key: PRNGKeyArray
) -> Float[Array, "B 7"]:
  """Each image's camera, turned by 0 to 179 whole degrees about its vertical; without gradient.

  Args:
    cameras: as predicted.
    index: of each image in its split; its view does not depend on the rest of the batch.
    key: of the step.

  Source: Li et al. 2020, supplementary 2.2; the range is the released code's. It holds all
    silhouettes, for one from behind is the mirror image of the one from the front; of the colours
    that the paper's second round compares, the other half of the circle is never shown.
  """
  keys = per_image_keys(key, index)
  degrees = jax.vmap(lambda k: jax.random.randint(k, (), 0, 180))(keys)
  return camera.rotate_view(jax.lax.stop_gradient(cameras), degrees)


def adversary_term(
  discriminator: DiscriminatorFn,
  vertices: Float[Array, "B V 3"],
  renders: Renders,
  batch: Batch,
  key: PRNGKeyArray,
  spec: ObjectiveSpec,
) -> Float[Array, "B"]:
  """The adversarial loss of each mesh from a random view, which backpropagates to the shape alone.

  With the domain "mask" the silhouettes under the predicted cameras are what is real; with "color"
  the images of the objects on black.

  Args:
    discriminator: with this step's parameters.
    vertices: every image's mesh, in object space.
    renders: under the predicted cameras.
    batch: the images.
    key: for a view per image.
    spec: of the objective.

  Source: Li et al. 2020, supplementary equation 1 and 2.2. Departs: rendered colours are multiplied
    with their coverage, like the images with their masks.
  """
  cameras = random_views(renders.camera, batch.index, key)
  corners = camera.project_faces(vertices, cameras, spec.topology.faces)
  if spec.weights.adversary_domain == "mask":
    fake = spec.render.soft_silhouette(corners)[..., None]
    real = choose_rows(renders.alpha, renders.chosen)[..., None]
  else:
    rgba = spec.render.soft_rasterize(corners, jax.lax.stop_gradient(renders.texels))
    fake = rgba[..., :3] * rgba[..., 3:]
    image, mask = (average_pool(x, spec.image_size) for x in (batch.image, batch.mask))
    real = image * mask[..., None]
  reversal = spec.weights.adversary_reversal
  return adversarial_loss(discriminator, real=real, fake=fake, reversal=reversal)
