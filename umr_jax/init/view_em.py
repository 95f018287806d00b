"""Expectation maximisation over views: a template of voxels, and a posterior over views per image.

In the E-step each image has a distribution over the views of a grid, broad at first; in the M-step
the template's features and shape are those that explain the images best under these distributions.
As the distributions sharpen, what was blurred settles: no image has to decide before there is a
template to compare it with.

Source: Scheres 2012 (RELION) finds the orientations of projections of an unknown volume in this
  way, in cryo-electron microscopy. Departs: features of opaque surfaces in place of densities, and
  a temperature that is set by the posteriors' mean perplexity; silhouettes, which change with the
  posture, count less than features.
"""

import dataclasses
import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from umr_jax.init.view_grid import ViewGrid
from umr_jax.init.voxel_template import (
  ViewMaps,
  VoxelTemplate,
  carve,
  fit_features,
  sum_on_voxels,
  view_maps,
)
from umr_jax.models.framed_images import FramedImages
from umr_jax.models.view_template import PIXELS, channel_weights, compare_views
from umr_jax.types import checked

# A prior of this many pixels per image in each voxel keeps features of rarely seen voxels small.
_RIDGE = 4e-4
# Power and number of the corrections of the azimuths' prior towards even ends; what an azimuth is
# used at least, as a share of the mean.
_POWER, _CORRECTIONS, _LEAST = 0.5, 2, 0.02
# Bisections of the temperature, and the logarithms between which it lies.
_BISECTIONS, _COLD, _HOT = 30, -7.0, 12.0


@struct.dataclass
class ViewFit:
  """What EM rounds change."""

  template: VoxelTemplate
  maps: ViewMaps
  posterior: Float[Array, "N K"]


def begin(images: FramedImages, template: VoxelTemplate, grid: ViewGrid) -> ViewFit:
  """The fit before its first round: every view is as likely as the prior says.

  Args:
    images: in their frames.
    template: the initial one.
    grid: of views.
  """
  prior = jax.nn.softmax(grid.log_prior)
  return ViewFit(
    template=template,
    maps=view_maps(template.occupied, grid.rotations, size=images.size),
    posterior=jnp.broadcast_to(prior, (len(images), len(prior))),
  )


def e_step(
  images: FramedImages, fit: ViewFit, grid: ViewGrid, perplexity: float, *, preference: float
) -> ViewFit:
  """The fit with the posteriors that its template gives.

  Args:
    images: in their frames.
    fit: with the template.
    grid: of views.
    perplexity: the mean number of views that an image is spread over.
    preference: see `view_posterior`.
  """
  scores = view_scores(images, fit, grid)
  posterior = view_posterior(scores, grid, jnp.float32(perplexity), jnp.float32(preference))
  return dataclasses.replace(fit, posterior=posterior)


def m_step(images: FramedImages, fit: ViewFit, grid: ViewGrid, *, shape: bool = False) -> ViewFit:
  """The fit with the features that explain the images best under its posteriors.

  Args:
    images: in their frames.
    fit: with the posteriors.
    grid: of views.
    shape: whether the shape is carved anew first.
  """
  occupied, maps = fit.template.occupied, fit.maps
  if shape:
    count = jnp.sum(fit.posterior, axis=0)
    occupied = carve(occupied, _silhouettes(images, fit), count, maps, grid.rotations)
    maps = view_maps(occupied, grid.rotations, size=images.size)
  template = VoxelTemplate(occupied, fit.template.features)
  fit = ViewFit(template, maps, fit.posterior)
  features = voxel_means(images, fit, grid)[0]
  return dataclasses.replace(fit, template=VoxelTemplate(occupied, features))


def voxel_means(
  images: FramedImages, fit: ViewFit, grid: ViewGrid
) -> tuple[Float[Array, "R R R C"], Float[Array, "R R R"]]:
  """The mean features of each voxel under the posteriors, smooth and symmetric.

  Args:
    images: in their frames; their channels may be others than the template's.
    fit: with shape and posteriors.
    grid: of views.

  Returns:
    The means, and how many pixels on the object show each voxel.
  """
  sums = _voxel_sums(images, fit.posterior, fit.maps, grid, resolution=fit.template.resolution)
  ridge = _RIDGE * len(images) * (images.size**2 / PIXELS)
  return fit_features(sums, ridge), sums[..., -1]


def em_rounds(
  images: FramedImages,
  fit: ViewFit,
  grid: ViewGrid,
  perplexities: Iterable[float],
  *,
  preference: float,
) -> ViewFit:
  """Several rounds without a new shape.

  Args:
    images: in their frames.
    fit: the first round begins with.
    grid: of views.
    perplexities: of each round's posteriors.
    preference: see `view_posterior`.
  """
  for perplexity in perplexities:
    fit = m_step(images, e_step(images, fit, grid, perplexity, preference=preference), grid)
  return fit


def explained_share(images: FramedImages, fit: ViewFit, grid: ViewGrid) -> float:
  """The mean share of an image's weighted square norm that its best view explains.

  Args:
    images: in their frames.
    fit: with the template.
    grid: of views.
  """
  best = jnp.max(view_scores(images, fit, grid), axis=1) * (images.size**2 / PIXELS)
  norm = jnp.sum(jnp.square(images.values) @ channel_weights(images.values.shape[-1]), axis=(1, 2))
  return float(jnp.mean(2.0 * best / jnp.maximum(norm, 1e-6)))


@jax.jit
@checked
def view_scores(images: FramedImages, fit: ViewFit, grid: ViewGrid) -> Float[Array, "N K"]:
  """Half of what each view takes off the weighted squared residual of each image.

  Args:
    images: in their frames.
    fit: with the template.
    grid: of views.
  """
  chunks = _by_azimuth(fit.maps.voxels, grid)
  scores = jax.lax.map(lambda shown: compare_views(images, fit.template.features, shown), chunks)
  return scores.reshape(-1, len(images)).T


@jax.jit
@checked
def view_posterior(
  scores: Float[Array, "N K"],
  grid: ViewGrid,
  perplexity: Float[Array, ""],
  preference: Float[Array, ""],
) -> Float[Array, "N K"]:
  """A distribution over views for each image, as broad as asked for on average.

  They are softmax(scores / T), T being the temperature at which their mean entropy is the logarithm
  of the perplexity. Then the azimuths' prior is corrected by how many images have each.

  Args:
    scores: of all views.
    grid: of views, with their prior.
    perplexity: at most K.
    preference: power by which azimuths that many images have become more likely; negative: less.
  """
  scores = scores + grid.log_prior[None]
  scores = scores - jnp.max(scores, axis=1, keepdims=True)

  def soften(log_temperature: Array) -> tuple[Array, Array]:
    logits = scores * jnp.exp(-log_temperature)
    total = jax.nn.logsumexp(logits, axis=1, keepdims=True)
    posterior = jnp.exp(logits - total)
    return posterior, jnp.mean(total[:, 0] - jnp.sum(posterior * logits, axis=1))

  def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
    low, high = bounds
    middle = 0.5 * (low + high)
    broad = soften(middle)[1] > jnp.log(perplexity)
    return jnp.where(broad, low, middle), jnp.where(broad, middle, high)

  bounds = (jnp.float32(_COLD), jnp.float32(_HOT))
  posterior = soften(jax.lax.fori_loop(0, _BISECTIONS, halve, bounds)[0])[0]
  for _ in range(_CORRECTIONS):
    prior = _azimuth_prior(posterior, grid, preference)
    posterior = posterior * prior[grid.azimuth][None]
    posterior = posterior / jnp.sum(posterior, axis=1, keepdims=True)
  return posterior


def _azimuth_prior(posterior: Array, grid: ViewGrid, preference: Array) -> Float[Array, "A"]:
  """The factor by which each azimuth becomes more or less likely.

  Photographers prefer some azimuths, of horses the sides; which end or which side comes first, they
  do not. So four azimuths that reflections exchange are evened out, and more or less likely
  together.
  """
  usual = len(posterior) / grid.azimuths
  used = jax.ops.segment_sum(jnp.sum(posterior, axis=0), grid.azimuth, num_segments=grid.azimuths)
  used = used + _LEAST * usual
  number, half = np.arange(grid.azimuths), grid.azimuths // 2
  reflections = np.stack([number, -number, number + half, half - number]) % grid.azimuths
  alike = jnp.mean(used[reflections], axis=0)
  return (alike / used) ** _POWER * (alike / usual) ** preference


@functools.partial(jax.jit, static_argnames="resolution")
def _voxel_sums(
  images: FramedImages, posterior: Array, maps: ViewMaps, grid: ViewGrid, *, resolution: int
) -> Float[Array, "R R R C1"]:
  """The sums of the images' values over the pixels that show each voxel."""

  def add(total: Array, azimuth: tuple[Array, Array]) -> tuple[Array, None]:
    voxels, weights = azimuth
    sums = (weights @ images.flat).reshape(*voxels.shape, -1)
    return total + sum_on_voxels(sums, voxels, resolution=resolution), None

  total = jnp.zeros((resolution,) * 3 + images.values.shape[-1:])
  by_azimuth = (_by_azimuth(maps.voxels, grid), _by_azimuth(posterior.T, grid))
  return jax.lax.scan(add, total, by_azimuth)[0]


@jax.jit
def _silhouettes(images: FramedImages, fit: ViewFit) -> Array:
  """The mean silhouette of the images of each view."""
  masks = images.values[..., -1]
  sums = jnp.einsum("nk,nhw->khw", fit.posterior, masks)
  return sums / jnp.maximum(jnp.sum(fit.posterior, axis=0), 1e-6)[:, None, None]


def _by_azimuth(views: Array, grid: ViewGrid) -> Array:
  """Views in chunks, one for each azimuth: all at once fill the memory."""
  return views.reshape(grid.azimuths, -1, *views.shape[1:])
