"""Keeping a texture off the background: what looks beside the object looks at its nearest part."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from umr_jax.geometry.sampling import bilinear_sample, pixel_centers
from umr_jax.types import checked

_COVERED = 0.5


@checked
def move_inside(
  flow: Float[Array, "B Hu Wu 2"], mask: Float[Array, "B h w"]
) -> Float[Array, "B Hu Wu 2"]:
  """Moves the places that lie outside of a silhouette to the nearest ones within it.

  A mesh never ends where the object does, to the pixel: without this it wears a rim of background.

  Args:
    flow: places (x, y) in the image.
    mask: the object's silhouette in the same image, small: every pixel is compared with every
      other.

  Returns:
    The flow, unchanged between pixels that are covered (half or more) and, in an image where none
    is, everywhere. Continuous in `flow`: a place between a covered pixel and one that is not moves
    by a share of what the latter does.

  Source: not in Li et al. 2020, whose network predicts the whole flow.
  """
  batch, height, width, _ = flow.shape
  # Held to the outermost centres, beyond which a look-up would fade.
  last = jnp.asarray(pixel_centers(*mask.shape[1:])[-1, -1])[None, None]
  places = jnp.clip(flow.reshape(batch, height * width, 2), -last, last)
  # One image at a time: h w h w numbers of each.
  moves = bilinear_sample(jax.lax.map(_to_nearest, mask), places)
  return flow + moves.reshape(flow.shape)


def _to_nearest(mask: Float[Array, "h w"]) -> Float[Array, "h w 2"]:
  """From each pixel's centre to the nearest covered one's."""
  height, width = mask.shape
  centers = jnp.asarray(pixel_centers(height, width).reshape(-1, 2))
  covered = mask.reshape(-1) >= _COVERED
  squared = jnp.sum(jnp.square(centers[:, None] - centers[None]), axis=-1)
  nearest = jnp.argmin(jnp.where(covered[None], squared, jnp.inf), axis=1)
  moves = jnp.where(jnp.any(covered), centers[nearest] - centers, 0.0)
  return moves.reshape(height, width, 2)
