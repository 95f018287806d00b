"""Where on a face each of its texels lies; apart from `uv`, so that `render` needs no flax."""

import numpy as np


def texel_barycentrics(texels_per_side: int) -> np.ndarray:
  """The centroid of every texel of a face, in the order in which the renderer reads texels.

  The renderer cuts a face into R * R congruent triangles. With barycentric weights w0, w1 of the
  first two corners it looks at the cell (i, j) = (floor(w0 R), floor(w1 R)): texel j R + i is the
  lower triangle of that cell, and (R - 1 - j) R + (R - 1 - i) the upper one.

  Args:
    texels_per_side: R, at least 1.

  Returns:
    [R * R, 3] weights of the face's corners, float64, all positive.

  Source: Liu et al. 2019 (SoftRas), surface textures.
    Departs: the released code fills the texels in another order, and reads 42% of each face's area
    from samples outside the face.
  """
  row, column = np.divmod(np.arange(texels_per_side**2), texels_per_side)
  lower = row + column < texels_per_side
  last = texels_per_side - 1
  w0 = np.where(lower, column + 1.0 / 3.0, last - column + 2.0 / 3.0) / texels_per_side
  w1 = np.where(lower, row + 1.0 / 3.0, last - row + 2.0 / 3.0) / texels_per_side
  return np.stack([w0, w1, 1.0 - w0 - w1], axis=-1)
