"""From a shape's code to the vertices' offsets from the template."""

import flax.linen as nn
from jaxtyping import Array, Float

from umr_jax.models.layers import Dense, normal
from umr_jax.types import checked


class ShapeHead(nn.Module):
  """One fully connected layer.

  It stays a single layer with a bias, `offsets`: an M-step moves the mean shape from that bias into
  the template without changing any instance.

  Source: Li et al. 2020, supplementary 2.2.
    Departs: the bias starts at zero, so that the first shapes are the template. The released code
    leaves its framework's default, a fixed jitter of about 0.03 object units.
  """

  num_half: int

  @nn.compact
  @checked
  def __call__(self, code: Float[Array, "B Z"]) -> Float[Array, "B Vh 3"]:
    """The offsets of the learned half of the vertices, in object units."""
    x = Dense(3 * self.num_half, kernel_init=normal(1e-4), name="offsets")(code)
    return x.reshape(-1, self.num_half, 3)
