"""The surface of a voxel grid, and the mesh around it."""

import jax
import numpy as np
import pytest

from umr_jax.geometry.symmetry import symmetrize
from umr_jax.geometry.topology import build_topology
from umr_jax.geometry.voxels import Mesh, solid_iou
from umr_jax.init.shrink_wrap import shrink_wrap, surface_points
from umr_jax.init.visual_hull import HALF, RESOLUTION

AT = HALF * ((2.0 * np.arange(RESOLUTION) + 1.0) / RESOLUTION - 1.0)


def test_a_surface_lies_where_the_opacity_crosses_the_level():
  at = HALF * ((2.0 * np.arange(RESOLUTION) + 1.0) / RESOLUTION - 1.0)
  x, y, z = np.meshgrid(at, at, at, indexing="ij")
  opacity = np.clip(1.1 - np.sqrt(x**2 + y**2 + z**2), 0.0, 1.0)
  opacity[0, 0, 0] = 1.0  # a speck
  points, outward = surface_points(opacity, level=0.5)
  np.testing.assert_allclose(np.linalg.norm(points, axis=1), 0.6, atol=0.01)
  np.testing.assert_allclose(outward, points / 0.6, atol=0.1)
  with pytest.raises(ValueError, match="agree on no solid"):
    surface_points(opacity, level=1.5)


def test_a_thin_wing_across_the_grid_belongs_to_the_body():
  """Its voxels touch by their corners alone."""
  opacity = np.zeros((RESOLUTION,) * 3)
  middle = RESOLUTION // 2
  opacity[middle - 4 : middle + 4, middle - 2 : middle + 2, middle - 2 : middle + 2] = 1.0
  steps = np.arange(8)
  for side in (middle + 2 + steps, middle - 3 - steps):
    opacity[middle + 4 + steps, side, middle] = 1.0
  opacity[2, 2, 2] = 1.0  # a speck
  points, _ = surface_points(opacity, level=0.5)
  voxel = 2.0 * HALF / RESOLUTION
  np.testing.assert_allclose(np.ptp(points, axis=0), voxel * np.array([16, 20, 4]), atol=voxel)


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_a_mesh_is_wrapped_around_both_halves_of_a_surface():
  x, y, z = np.meshgrid(AT, AT, AT, indexing="ij")
  distance = np.sqrt((x / 0.9) ** 2 + (y / 0.5) ** 2 + ((z - 0.1 * x) / 0.4) ** 2)
  topology = build_topology(2, texels_per_side=1, symmetric_texture=False)
  surface = surface_points(np.clip(1.5 - distance, 0.0, 1.0), level=0.5)
  with jax.numpy_dtype_promotion("standard"):  # optax multiplies float32 by int32
    half = shrink_wrap(*surface, topology)
  wrapped = np.asarray(symmetrize(half, num_center=topology.num_center))
  true = np.asarray(topology.sphere) * [0.9, 0.5, 0.4]
  true[:, 2] += 0.1 * true[:, 0]
  faces = np.asarray(topology.faces)
  assert solid_iou(Mesh(wrapped, faces), Mesh(true, faces)) > 0.9
