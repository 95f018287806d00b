"""Whether parts stay what they are when the picture is mirrored."""

import numpy as np
from jaxtyping import Float

from umr_jax.types import checked


@checked
def mirror_agreement(
  maps: Float[np.ndarray, "N S S P1"], mirrored: Float[np.ndarray, "N S S P1"]
) -> Float[np.ndarray, "N"]:
  """The share of each object's pixels that get the same part when the picture is mirrored.

  Args:
    maps: of the pictures, background first.
    mirrored: of the pictures mirrored left to right, as they came.
  """
  found, other = np.argmax(maps, axis=-1), np.argmax(mirrored[:, :, ::-1], axis=-1)
  inside = (found > 0) & (other > 0)
  same = np.count_nonzero(inside & (found == other), axis=(1, 2))
  return same / np.maximum(np.count_nonzero(inside, axis=(1, 2)), 1)
