"""How far apart two surfaces lie on average."""

import numpy as np
from scipy.spatial import KDTree

from umr_jax.eval.solid import Mesh


def chamfer_l1(*, predicted: Mesh, true: Mesh, points: int = 10000, seed: int = 0) -> float:
  """The mean distance between two surfaces, over both directions.

  Args:
    predicted: one mesh.
    true: the other, in the same frame.
    points: how many are drawn on each surface, evenly by area. The default tells surfaces apart
      that lie more than about 0.002 diagonals from each other.
    seed: of the draw. Both surfaces use the same one, so that equal meshes are 0 apart.

  Returns:
    Half the sum of the mean distances from each surface's points to the nearest of the other's, in
    diagonals of the true mesh's box.

  Raises:
    ValueError: for a mesh without area.

  Source: Mescheder et al. 2019 (Occupancy Networks), Chamfer-L1, with the box's diagonal as unit.
  """
  a, b = (sample_surface(mesh, points=points, seed=seed) for mesh in (predicted, true))
  corners = np.asarray(true.vertices, np.float64)[np.asarray(true.faces)].reshape(-1, 3)
  diagonal = np.linalg.norm(corners.max(axis=0) - corners.min(axis=0))
  distances = [KDTree(x).query(y)[0].mean() for x, y in ((a, b), (b, a))]
  return float(np.mean(distances) / diagonal)


def sample_surface(mesh: Mesh, *, points: int, seed: int) -> np.ndarray:
  """Draws points uniformly on a surface.

  Args:
    mesh: at least one of its faces must have area.
    points: how many.
    seed: of the draw.

  Returns:
    [points, 3], float64.

  Raises:
    ValueError: if the mesh has no area, or its coordinates are not finite.
  """
  corners = np.asarray(mesh.vertices, np.float64)[np.asarray(mesh.faces)]
  sides = corners[:, 1:] - corners[:, :1]
  area = np.cumsum(np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=-1))
  if not area.size or not np.isfinite(area[-1]) or area[-1] <= 0.0:
    raise ValueError(f"cannot draw points on a mesh of {len(corners)} faces without finite area")
  rng = np.random.default_rng(seed)
  # Evenly spaced quantiles of the area leave less to chance than independent draws.
  quantiles = (np.arange(points) + rng.uniform(size=points)) / points
  chosen = np.minimum(np.searchsorted(area / area[-1], quantiles, side="right"), len(corners) - 1)
  u, v = rng.uniform(size=(2, points))
  over = u + v > 1.0
  u, v = np.where(over, 1.0 - u, u), np.where(over, 1.0 - v, v)
  return corners[chosen, 0] + u[:, None] * sides[chosen, 0] + v[:, None] * sides[chosen, 1]
