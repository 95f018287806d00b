"""What changes in a photograph without changing what it shows: its colours."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from umr_jax.types import checked

# Of red, green and blue in what the eye takes for brightness (ITU-R BT.601).
_LUMA = (0.299, 0.587, 0.114)


@checked
def color_jitter(
  images: Float[Array, "B H W 3"], index: Int[Array, "B"], key: PRNGKeyArray, strength: float
) -> Float[Array, "B H W 3"]:
  """Photographs in another light: gains of the channels, contrast and saturation drawn anew.

  Only the network sees them. A few hundred photographs are otherwise learned by heart, colour by
  colour; what the texture is compared with stays the photograph.

  Args:
    images: RGB in [0, 1].
    index: of each image in the data set; its draw does not depend on the rest of the batch.
    key: of the step.
    strength: every factor is exp(u) with u uniform in [-strength, strength].

  Returns:
    RGB in [0, 1].
  """
  keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
  draws = jax.vmap(lambda k: jax.random.uniform(k, (5,), minval=-strength, maxval=strength))(keys)
  factors = jnp.exp(draws)[:, None, None, :]
  gains, contrast, saturation = factors[..., :3], factors[..., 3:4], factors[..., 4:]
  grey = jnp.sum(images * jnp.array(_LUMA).reshape(1, 1, 1, 3), axis=-1, keepdims=True)
  images = grey + saturation * (images - grey)
  mean = jnp.mean(images, axis=(1, 2), keepdims=True)
  return jnp.clip((mean + contrast * (images - mean)) * gains, 0.0, 1.0)
