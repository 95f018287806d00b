"""The template that views are compared with at prediction, and how sure its posteriors may be.

Pose search compares the features of a large network; a prediction has the maps of the frozen
encoder alone. Once every training image has a camera, the same voxels can carry these.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Array, Float, Int

from umr_jax.init.dense_features import ImageMaps
from umr_jax.init.discriminants import fit_discriminants
from umr_jax.init.view_em import ViewFit, m_step
from umr_jax.init.view_grid import ViewGrid
from umr_jax.init.voxel_template import VoxelTemplate, ellipsoid, view_maps
from umr_jax.models.framed_images import fit_projection, frame_images, project_features
from umr_jax.models.view_template import REGION, credible_region, view_logits
from umr_jax.types import Projection, ViewTemplate, checked

# Voxels per side, and pixels per side of the frames.
_VOXELS, _PIXELS = 24, 24
# Half axes of the shape that is carved, and how often it is carved anew.
_HALF_AXES, _CARVINGS = (1.0, 0.5, 0.5), 3
# Deviation, in degrees, of the views around each image's camera that it counts for.
_DEVIATION = 12.0
# Images that the principal components are found on, at most; images compared at a time.
_PROJECTED, _COMPARED = 200, 100
# Two halves of the images do not tell what both get wrong: regions hold the truth on 90% of unseen
# cars, aeroplanes and birds at 1.3, 1.6 and 2.0 times the temperature on which their halves agree
# (one seed; this is their middle).
_SHARED = 1.7
# Bisections of the temperature, and the highest.
_BISECTIONS, _MOST = 20, 100.0


def fit_view_template(
  images: ImageMaps, cameras: Float[np.ndarray, "N 7"], grid: ViewGrid
) -> ViewTemplate:
  """The template of images whose cameras are known, with a temperature that suits it.

  Each half of the images is compared with the template of the other half, and the least temperature
  is found at which the regions of 90% hold the cameras of 90% of them. The template's is higher:
  what both halves get wrong they do not tell.

  Args:
    images: the frozen encoder's maps, and silhouettes.
    cameras: of the images.
    grid: of views.
  """
  rotations = jnp.asarray(cameras[:, 3:])
  logits, views = [], []
  halves = slice(0, None, 2), slice(1, None, 2)
  for fitted, left in (halves, halves[::-1]):
    half = _fit(images.rows(fitted), rotations[fitted], grid)
    logits.append(_logits(half, images.rows(left)))
    views.append(nearest_views(rotations[left], grid.rotations))
  temperature = calibrated_temperature(np.concatenate(logits), np.concatenate(views))
  logging.info("Views: two halves of the images agree at a temperature of %.2f.", temperature)
  found = _fit(images, rotations, grid)
  return dataclasses.replace(found, temperature=jnp.float32(_SHARED * temperature))


@checked
def calibrated_temperature(
  logits: Float[np.ndarray, "N K"], views: Int[np.ndarray, "N"], *, share: float = REGION
) -> float:
  """The least temperature at which regions of a share hold the given views of that share.

  Args:
    logits: of the views' posteriors at temperature 1.
    views: one of each image.
    share: of the probability, and of the images.
  """
  rows = np.arange(len(views))

  def held(temperature: float) -> float:
    probs = np.asarray(jax.nn.softmax(jnp.asarray(logits) / temperature, axis=-1))
    return float(credible_region(probs, share)[rows, views].mean())

  low, high = np.log(1.0 / _MOST), np.log(_MOST)
  for _ in range(_BISECTIONS):
    middle = 0.5 * (low + high)
    low, high = (low, middle) if held(float(np.exp(middle))) >= share else (middle, high)
  return float(np.exp(high))


@checked
def nearest_views(
  rotations: Float[Array, "N 4"], views: Float[Array, "K 4"]
) -> Int[np.ndarray, "N"]:
  """The number of the view that is nearest to each rotation.

  Args:
    rotations: unit quaternions.
    views: likewise.
  """
  return np.asarray(jnp.argmax(jnp.abs(rotations @ views.T), axis=1))


def _fit(images: ImageMaps, rotations: Float[Array, "N 4"], grid: ViewGrid) -> ViewTemplate:
  """The template at temperature 1."""
  some = images.rows(slice(None, None, -(-len(images.masks) // _PROJECTED)))
  projection = fit_projection(some.features, some.masks)
  masks = jnp.asarray(images.masks)
  channels = np.asarray(project_features(projection, jnp.asarray(images.features)))
  framed = frame_images(jnp.asarray(channels), masks, size=_PIXELS)
  occupied = ellipsoid(_HALF_AXES, _VOXELS)
  features = jnp.zeros((*occupied.shape, channels.shape[-1]))
  fit = ViewFit(
    template=VoxelTemplate(occupied, features),
    maps=view_maps(occupied, grid.rotations, size=_PIXELS),
    posterior=_around(rotations, grid),
  )
  for _ in range(_CARVINGS):
    fit = m_step(framed, fit, grid, shape=True)
  matrix = fit_discriminants(framed, fit, grid)
  framed = frame_images(jnp.asarray(channels @ matrix), masks, size=_PIXELS)
  fit = m_step(framed, fit, grid)
  return ViewTemplate(
    projection=Projection(projection.mean, projection.matrix @ matrix),
    features=fit.template.features,
    voxels=fit.maps.voxels.astype(jnp.int16),
    centers=fit.maps.centers,
    sides=fit.maps.sides,
    rotations=grid.rotations,
    log_prior=grid.log_prior,
    temperature=jnp.float32(1.0),
  )


def _around(rotations: Float[Array, "N 4"], grid: ViewGrid) -> Float[Array, "N K"]:
  """A distribution over the views around each image's camera."""
  cosines = jnp.clip(jnp.abs(rotations @ grid.rotations.T), 0.0, 1.0)
  angles = 2.0 * jnp.arccos(cosines) / jnp.deg2rad(_DEVIATION)
  return jax.nn.softmax(-0.5 * jnp.square(angles), axis=1)


def _logits(template: ViewTemplate, images: ImageMaps) -> Float[np.ndarray, "n K"]:
  """`view_logits` of many images."""
  chunks = (slice(i, i + _COMPARED) for i in range(0, len(images.masks), _COMPARED))
  found = [
    view_logits(template, jnp.asarray(some.features), jnp.asarray(some.masks))
    for some in map(images.rows, chunks)
  ]
  return np.asarray(jnp.concatenate(found))
