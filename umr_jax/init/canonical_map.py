"""Where the canonical part map may begin: at the parts' places in the category's profile."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import ndimage

from umr_jax.geometry.symmetry import symmetrize
from umr_jax.geometry.uv import uv_corners
from umr_jax.types import Topology

# Blur of the profile's parts, as a share of its side: no hole where no image shows a part.
_BLUR = 0.03


def first_canonical_uv(
  parts: Float[np.ndarray, "S S P1"],
  half_vertices: Float[np.ndarray, "Vh 3"],
  topology: Topology,
  *,
  uv_height: int,
) -> Float[np.ndarray, "Hu Wu P1"]:
  """The parts of a profile, laid upon the solid that was made from that profile.

  Both sides show what the profile shows, from rim to rim. Nothing on the template is background.

  Args:
    parts: mean part map of the images that show the profile, background first; its sides are at -1
      and 1 of the template's x and (upwards) z.
    half_vertices: the template, from `first_template.inflate`.
    topology: of the mesh.
    uv_height: rows of the map.

  Departs: in the paper the first canonical map is the first M-step's, when cameras and flow have
    been learned without parts. Where they have not been learned well, their mean is no map.
  """
  size = parts.shape[0]
  vertices = np.asarray(symmetrize(jnp.asarray(half_vertices), num_center=topology.num_center))
  nearest, weights = uv_corners(topology, uv_height)
  places = np.einsum("hwk,hwkc->hwc", weights, vertices[nearest])
  row = 0.5 * size * (1.0 - places[..., 2]) - 0.5
  column = 0.5 * size * (1.0 + places[..., 0]) - 0.5
  blurred = ndimage.gaussian_filter(parts[..., 1:], (_BLUR * size, _BLUR * size, 0))
  shares = blurred / np.maximum(blurred.sum(-1, keepdims=True), 1e-12)
  found = [
    ndimage.map_coordinates(plane, (row, column), order=1, mode="nearest")
    for plane in np.moveaxis(shares, -1, 0)
  ]
  return np.stack([np.zeros(row.shape), *found], axis=-1).astype(np.float32)
