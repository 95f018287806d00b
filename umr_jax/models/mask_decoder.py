"""From a frozen backbone's maps to the silhouette as pixels."""

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from umr_jax.models.layers import BatchNorm, Conv, enlarged, normal, normed_conv
from umr_jax.types import checked

# Channels where the maps are finest; twice as many at each coarser one.
_WIDTH = 16


class MaskDecoder(nn.Module):
  """Coarse maps know what the object is, fine ones where it ends: from the former to the latter.

  Each step enlarges what is known and adds the next finer map to it. No other head reads the
  prediction; meshes are fitted to it after training (`umr_jax.predict.test_time`).

  Source: Lin et al. 2017, "Feature Pyramid Networks". Departs: the paper of UMR has no such head.
  """

  norm: str = "group"  # batch | group

  @nn.compact
  @checked
  def __call__(
    self, maps: tuple[Float[Array, "B _ _ _"], ...], *, train: bool
  ) -> Float[Array, "B H W"]:
    """Predicts silhouettes.

    Args:
      maps: square ones of the backbone, the finest first.
      train: whether BatchNorm uses the batch's statistics.

    Returns:
      Logits of a pixel being the object's, as many as the finest map has places.
    """
    *finer, x = maps
    level = len(finer)
    x = self._convolved(x, level, train=train)
    for level, skip in reversed(list(enumerate(finer))):
      wide = _WIDTH << level
      # Channels of the frozen network have scales of their own.
      skip = BatchNorm(name=f"map{level}_bn")(skip, train=train)
      skip = normed_conv(skip, wide, size=1, norm=self.norm, name=f"lateral{level}", train=train)
      x = normed_conv(x, wide, size=1, norm=self.norm, name=f"above{level}", train=train)
      x = self._convolved(jax.nn.relu(skip + enlarged(x, skip.shape[1])), level, train=train)
    # Undecided at first, but with a gradient for all that lies below.
    return Conv(1, 1, kernel_init=normal(0.1), name="logits")(x)[..., 0]

  def _convolved(self, x: Array, level: int, *, train: bool) -> Array:
    name = f"smooth{level}"
    return jax.nn.relu(
      normed_conv(x, _WIDTH << level, size=3, norm=self.norm, name=name, train=train)
    )
