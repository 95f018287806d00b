"""Fisher's discriminants of a category: the features that tell where on the object a pixel lies.

The principal components of a network's features are what varies most in the images: light, colours
and breeds as much as places. Once views are known roughly, every voxel has a mean; discriminants
vary much from voxel to voxel and little among the images of one.

Source: Fisher 1936, "The use of multiple measurements in taxonomic problems", and Rao 1948 for more
  than two classes. Departs: the classes are voxels, to which pixels belong by the posteriors of EM.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from umr_jax.init.view_em import ViewFit, voxel_means
from umr_jax.init.view_grid import ViewGrid
from umr_jax.models.framed_images import FramedImages

# How many are kept.
DISCRIMINANTS = 16
# Variances within voxels count as this share of the largest at least: small ones are noise.
_FLOOR = 0.05


def fit_discriminants(
  images: FramedImages, fit: ViewFit, grid: ViewGrid
) -> Float[np.ndarray, "C D"]:
  """Finds the directions that vary most between voxels, compared with their variance within them.

  Args:
    images: with all the channels among which to look, in their frames.
    fit: of the same images; its features may be others.
    grid: of views.

  Returns:
    The matrix that takes the images' channels to discriminants, of expected square norm 1 on the
    objects, the most telling first.
  """
  between, total = (
    np.asarray(m, np.float64) for m in _scatter(images, *voxel_means(images, fit, grid))
  )
  variances, vectors = np.linalg.eigh(total - between)
  whiten = vectors / np.sqrt(np.maximum(variances, _FLOOR * variances[-1]))
  ratios, directions = np.linalg.eigh(whiten.T @ between @ whiten)
  matrix = whiten @ directions[:, np.argsort(-ratios)[:DISCRIMINANTS]]
  norm = np.sqrt(np.trace(matrix.T @ total @ matrix))
  return (matrix / norm).astype(np.float32)


@jax.jit
def _scatter(
  images: FramedImages, means: Float[jax.Array, "R R R C"], mass: Float[jax.Array, "R R R"]
) -> tuple[jax.Array, jax.Array]:
  """[C, C] each: the covariance of the voxels' means, and that of all pixels on the objects."""
  values = images.values.reshape(-1, images.values.shape[-1])
  features, shown = values[:, :-1], values[:, -1]
  center = (shown @ features) / jnp.sum(shown**2)
  total = features.T @ features / jnp.sum(shown**2) - center[:, None] * center[None]
  share = (mass / jnp.sum(mass)).reshape(-1)
  means = means.reshape(len(share), -1)
  middle = share @ means
  between = (share[:, None] * means).T @ means - middle[:, None] * middle[None]
  return between, total
