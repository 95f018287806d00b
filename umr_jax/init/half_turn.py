"""Which end is which: half turns of all images, decided at once.

Many things look alike from both ends, and EM settles early on some images turned by 180 degrees.
What is left of an image after the part of the template that is the same at both ends has a sign:
turning the image reverses it. The signs under which all images agree best are those of the leading
eigenvector of their Gram matrix.

Source: Singer 2011, "Angular synchronization by eigenvectors and semidefinite programming", here
  with half turns alone.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from umr_jax.init.view_em import ViewFit, m_step
from umr_jax.init.view_grid import ViewGrid
from umr_jax.init.voxel_template import (
  VoxelTemplate,
  blurred,
  sum_on_voxels,
  view_maps,
)
from umr_jax.models.framed_images import FramedImages
from umr_jax.models.view_template import render_features

# Voxels per side of the residuals that are compared, and their blur in 24ths of the cube.
_COARSE, _BLUR = 8, 1.4
# What is left of the likelihood of the other end.
_OTHER = 0.02
_BATCH = 32


def with_common_ends(images: FramedImages, fit: ViewFit, grid: ViewGrid) -> ViewFit:
  """The fit with each image at the end that agrees best with all others.

  Args:
    images: in their frames.
    fit: right but for half turns.
    grid: of views.
  """
  both = fit.posterior + fit.posterior[:, grid.opposite]
  view = jnp.argmax(both, axis=1)
  rows = jnp.arange(len(view))
  turned = fit.posterior[rows, view] < fit.posterior[rows, grid.opposite[view]]
  view = jnp.where(turned, grid.opposite[view], view)
  template, voxels = _even(images, fit, both, grid)
  odd = np.asarray(_odd_residuals(images, template, voxels, view))
  odd = odd / np.maximum(np.linalg.norm(odd, axis=1, keepdims=True), 1e-9)
  gram = odd @ odd.T
  np.fill_diagonal(gram, 0.0)
  flip = np.linalg.eigh(gram)[1][:, -1] < 0.0
  # All signs together have none: as few images as possible turn.
  flip ^= flip.mean() > 0.5
  end = jnp.where(jnp.asarray(flip), grid.opposite[view], view)
  gap = jnp.abs(grid.azimuth[None] - grid.azimuth[end][:, None])
  near = 4 * jnp.minimum(gap, grid.azimuths - gap) < grid.azimuths
  posterior = both * jnp.where(near, 1.0, _OTHER)
  posterior /= jnp.sum(posterior, axis=1, keepdims=True)
  return m_step(images, dataclasses.replace(fit, posterior=posterior), grid)


def _even(
  images: FramedImages, fit: ViewFit, both: Array, grid: ViewGrid
) -> tuple[VoxelTemplate, Int[Array, "K S S"]]:
  """The template that is the same at both ends, and its view maps."""
  occupied = fit.template.occupied | fit.template.occupied[::-1]
  maps = view_maps(occupied, grid.rotations, size=images.size)
  template = VoxelTemplate(occupied, fit.template.features)
  even = m_step(images, ViewFit(template, maps, 0.5 * both), grid).template.features
  return VoxelTemplate(occupied, 0.5 * (even + even[::-1])), maps.voxels


@jax.jit
def _odd_residuals(
  images: FramedImages, template: VoxelTemplate, voxels: Int[Array, "K S S"], view: Int[Array, "N"]
) -> Float[Array, "N D"]:
  """What is left of each image at its view, on coarse voxels, less the same at the other end."""
  resolution = template.resolution
  step = resolution // _COARSE

  def of_image(image: tuple[Array, Array]) -> Array:
    values, k = image
    shown = voxels[k]
    residual = values - render_features(template.features, shown[None])[0]
    x, y, z = (shown // resolution**power % resolution // step for power in (2, 1, 0))
    coarse = jnp.where(shown < 0, -1, (x * _COARSE + y) * _COARSE + z)
    total = sum_on_voxels(residual[None], coarse[None], resolution=_COARSE)
    total = blurred(total + total[:, ::-1], _BLUR)
    return (total - total[::-1])[: _COARSE // 2].ravel()

  return jax.lax.map(of_image, (images.values, view), batch_size=_BATCH)
