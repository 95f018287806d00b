"""From the encoder's map to the silhouette as pixels: a task that teaches the encoder."""

import flax.linen as nn
from jaxtyping import Array, Float

from umr_jax.models.layers import Conv
from umr_jax.types import checked

# Every cell of the map, 32 pixels of the photograph wide, says this many rows and columns.
BLOCK = 16


class MaskHead(nn.Module):
  """Each cell of the encoder's map predicts its own block of the silhouette, by one linear layer.

  No other head reads the prediction. Through the mesh, a pixel of the silhouette teaches the
  encoder by way of a vertex, a camera and the outline that both give; here it teaches the cell that
  saw it.

  Departs: the paper's network has no such head.
  """

  @nn.compact
  @checked
  def __call__(self, layout: Float[Array, "B h w C"]) -> Float[Array, "B H W"]:
    """Predicts silhouettes.

    Args:
      layout: the encoder's last map.

    Returns:
      Logits; H is 16 h, half the photograph's size where that is a multiple of 32.
    """
    batch, rows, columns, _ = layout.shape
    x = Conv(BLOCK * BLOCK, 1, name="conv")(layout)
    x = x.reshape(batch, rows, columns, BLOCK, BLOCK).swapaxes(2, 3)
    return x.reshape(batch, rows * BLOCK, columns * BLOCK)
