"""Random numbers: which key a draw is made under."""

import jax
from jaxtyping import Array, Int, Key, PRNGKeyArray

from umr_jax.types import checked


@checked
def per_image_keys(key: PRNGKeyArray, index: Int[Array, "B"]) -> Key[Array, "B"]:
  """One key per image, under which its random numbers are drawn.

  An image's draw then depends on neither its place in the batch nor the number of devices.

  Args:
    key: of the step, and of what is drawn.
    index: of each image in its split.

  Returns:
    The keys, one per image.
  """
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
