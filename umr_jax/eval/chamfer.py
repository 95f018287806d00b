"""How far apart two surfaces lie: on average, and how much of them lies close together."""

import numpy as np
from scipy.spatial import KDTree

from umr_jax.geometry.voxels import Mesh

# Points that lie nearer to the other surface, in diagonals of the true mesh's box, are close.
CLOSE = 0.02
# Drawn on each surface, evenly by area. They tell surfaces apart that lie more than about 0.002
# diagonals from each other.
POINTS = 10000


def surface_errors(*, predicted: Mesh, true: Mesh, seed: int = 0) -> tuple[float, float]:
  """Chamfer-L1 and F-score of two surfaces.

  Args:
    predicted: one mesh.
    true: the other, in the same frame.
    seed: of the draw. Both surfaces use the same one, so that equal meshes are 0 apart.

  Returns:
    Half the sum of the mean distances from each surface's points to the nearest of the other's, in
    diagonals of the true mesh's box; and the harmonic mean of the shares of each surface's points
    that lie nearer than `CLOSE` diagonals to the other's.

  Raises:
    ValueError: for a mesh without area.

  Source: Mescheder et al. 2019 (Occupancy Networks), Chamfer-L1, with the box's diagonal as unit;
    Knapitsch et al. 2017 (Tanks and Temples), F-score.
  """
  a, b = (sample_surface(mesh, points=POINTS, seed=seed) for mesh in (predicted, true))
  corners = np.asarray(true.vertices, np.float64)[np.asarray(true.faces)].reshape(-1, 3)
  diagonal = np.linalg.norm(corners.max(axis=0) - corners.min(axis=0))
  distances = [KDTree(x).query(y)[0] / diagonal for x, y in ((a, b), (b, a))]
  recall, precision = (float((d < CLOSE).mean()) for d in distances)
  score = 2.0 * precision * recall / (precision + recall) if precision + recall else 0.0
  return float(np.mean([d.mean() for d in distances])), score


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
