"""Pose search: the cameras of all images of a category, from dense features and silhouettes.

EM over views (`view_em`) on a coarse template, from broad posteriors to sharp ones, with new shapes
and common ends (`half_turn`) on the way, each kept where it explains more; from several initial
shapes, the best of which goes on. So far it compares the features' first principal components; it
goes on with `discriminants`, found twice. Then some rounds on a finer template, with finer views.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Array, Float, PRNGKeyArray

from umr_jax.geometry.camera import Camera
from umr_jax.init.dense_features import ImageMaps
from umr_jax.init.discriminants import fit_discriminants
from umr_jax.init.half_turn import with_common_ends
from umr_jax.init.pose_search import PoseSearch
from umr_jax.init.view_em import (
  ViewFit,
  begin,
  e_step,
  em_rounds,
  explained_share,
  m_step,
  view_posterior,
  view_scores,
)
from umr_jax.init.view_grid import ViewGrid, make_view_grid, mean_rotations
from umr_jax.init.voxel_template import VoxelTemplate, blurred, ellipsoid, upsampled, view_maps
from umr_jax.models.framed_images import FramedImages, frame_images, silhouette_aspects
from umr_jax.progress import tracked

# Principal components that the search begins with; how often discriminants are found.
_LEADING, _DISCRIMINATIONS = 24, 2
# At most this many images make the template, evenly spaced; all others are compared with it.
_FITTED = 1000
# The initial templates: their width (half axis along y; that along x is 1), and as their heights
# these quantiles of the silhouettes' height by width, within limits.
_WIDTH, _ASPECT_QUANTILES, _HEIGHTS = 0.5, (0.3, 0.5), (0.25, 1.0)
# Standard deviation of the initial features, and of their blur in 24ths of the cube: they break the
# symmetry.
_NOISE, _NOISE_BLUR = 0.3, 4.0
# Rounds after which a new shape, or other ends, are compared with those before.
_TRIAL_ROUNDS = 2
# Perplexity of the posteriors whose means are the cameras.
_FINAL_PERPLEXITY = 8.0
# The powers of the azimuths' preference (`view_posterior`): at first all are kept evenly used, or
# many images settle at the wrong end; once views are known, they tell what photographers prefer.
_EVEN, _PREFERRED = -0.5, 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Level:
  """A resolution of the search."""

  voxels: int  # per side of the template
  pixels: int  # per side of the frames
  azimuths: int
  elevation_step: float  # degrees, about
  rolls: tuple[float, ...]  # as shares of the largest

  def grid(self, search: PoseSearch) -> ViewGrid:
    """The views within a search's bounds."""
    low, high = search.elevation
    count = max(1, round((high - low) / self.elevation_step))
    elevations = low + (high - low) * (np.arange(count) + 0.5) / count
    rolls = np.unique(search.roll * np.array(self.rolls))
    return make_view_grid(self.azimuths, elevations, rolls)


_COARSE = _Level(voxels=24, pixels=24, azimuths=24, elevation_step=15.0, rolls=(-0.75, 0.0, 0.75))
_FINE = _Level(
  voxels=40, pixels=48, azimuths=48, elevation_step=10.0, rolls=(-0.75, -0.375, 0.0, 0.375, 0.75)
)


def coarse_grid(search: PoseSearch) -> ViewGrid:
  """The views that the search begins with.

  Args:
    search: the bounds on elevation and roll.
  """
  return _COARSE.grid(search)


class _Stage(NamedTuple):
  """One EM round."""

  perplexity: float
  shape: bool  # whether a new shape is tried


def _stages(start: float, stop: float, rounds: int, *, shapes: tuple[int, ...]) -> list[_Stage]:
  """Rounds of falling perplexity, some of which try a new shape."""
  return [_Stage(float(p), i in shapes) for i, p in enumerate(np.geomspace(start, stop, rounds))]


def _shown(stages: Sequence[_Stage], what: str) -> Iterator[_Stage]:
  return tracked(stages, f"{what}, rounds", total=len(stages))


def find_views(
  maps: ImageMaps, *, search: PoseSearch, key: PRNGKeyArray
) -> Float[np.ndarray, "N 7"]:
  """Finds a camera for every image of a category.

  Args:
    maps: features and silhouettes of the images, in the frames of their crops.
    search: the bounds on elevation and roll.
    key: of the initial features.

  Returns:
    The cameras, up to a common rotation about the vertical.
  """
  rows = np.linspace(0, len(maps.masks) - 1, min(len(maps.masks), _FITTED)).astype(int)
  template, matrix = _coarse_template(maps.rows(rows), _COARSE.grid(search), key)
  maps = maps.projected(matrix)
  images, grid = _framed(maps.rows(rows), _FINE), _FINE.grid(search)
  fit = begin(images, upsampled(template, _FINE.voxels), grid)
  for stage in _shown(_stages(6.0, 2.0, 6, shapes=(0, 3)), "fine views"):
    fit = e_step(images, fit, grid, stage.perplexity, preference=_PREFERRED)
    fit = m_step(images, fit, grid, shape=stage.shape)
  share = explained_share(images, fit, grid)
  logging.info("Pose search: views explain %.3f of the images.", share)
  scores, centers, sides = [], [], []
  for start in range(0, len(maps.masks), _FITTED):
    images = _framed(maps.rows(slice(start, start + _FITTED)), _FINE)
    scores.append(view_scores(images, fit, grid))
    centers.append(images.centers)
    sides.append(images.sides)
  posterior = view_posterior(
    jnp.concatenate(scores), grid, jnp.float32(_FINAL_PERPLEXITY), jnp.float32(_PREFERRED)
  )
  return _cameras(
    posterior, jnp.concatenate(centers), jnp.concatenate(sides), fit.template, grid.rotations
  )


def _coarse_template(
  maps: ImageMaps, grid: ViewGrid, key: PRNGKeyArray
) -> tuple[VoxelTemplate, Float[np.ndarray, "C D"]]:
  """The template of the coarse level, and the matrix from images' channels to its features."""
  images = _framed(maps.leading(_LEADING), _COARSE)
  starts = [
    _anneal(images, grid, _initial_template(images, quantile, jax.random.fold_in(key, i)))
    for i, quantile in enumerate(_ASPECT_QUANTILES)
  ]
  fit = _best(images, grid, starts)
  for _ in range(_DISCRIMINATIONS):
    matrix = fit_discriminants(_framed(maps, _COARSE), fit, grid)
    images = _framed(maps.projected(matrix), _COARSE)
    fit = m_step(images, fit, grid)
    stages = _stages(8.0, 1.5, 8, shapes=(2, 5))
    fit = _run(images, fit, grid, stages, preference=_PREFERRED)
  share = explained_share(images, fit, grid)
  logging.info("Pose search, by discriminants: views explain %.3f of the images.", share)
  return fit.template, matrix


def _anneal(images: FramedImages, grid: ViewGrid, template: VoxelTemplate) -> ViewFit:
  """EM from broad posteriors to sharp ones on the coarse level."""
  fit = begin(images, template, grid)
  stages = _stages(0.15 * len(grid.rotations), 4.0, 16, shapes=(5, 11))
  fit = _run(images, fit, grid, stages, preference=_EVEN)
  sharpen = functools.partial(
    em_rounds, images, grid=grid, perplexities=(4.0, 3.0, 2.0, 1.5), preference=_EVEN
  )
  fit = _best(
    images, grid, [sharpen(fit=one) for one in (fit, with_common_ends(images, fit, grid))]
  )
  stages = _stages(4.0, 1.5, 14, shapes=(0, 3, 6, 9, 12))
  fit = _run(images, fit, grid, stages, preference=_EVEN)
  share = explained_share(images, fit, grid)
  logging.info("Pose search, coarse: views explain %.3f of the images.", share)
  return fit


def _run(
  images: FramedImages,
  fit: ViewFit,
  grid: ViewGrid,
  stages: Sequence[_Stage],
  *,
  preference: float,
) -> ViewFit:
  """EM rounds; a new shape is taken where it explains more some rounds later."""
  again = functools.partial(em_rounds, images, grid=grid, preference=preference)
  for stage in _shown(stages, "coarse views"):
    begun = e_step(images, fit, grid, stage.perplexity, preference=preference)
    fit = m_step(images, begun, grid)
    if stage.shape:
      tried = (fit, m_step(images, begun, grid, shape=True))
      perplexities = [stage.perplexity] * _TRIAL_ROUNDS
      fit = _best(images, grid, [again(fit=one, perplexities=perplexities) for one in tried])
  return fit


def _best(images: FramedImages, grid: ViewGrid, fits: Sequence[ViewFit]) -> ViewFit:
  return max(fits, key=lambda fit: explained_share(images, fit, grid))


def _initial_template(images: FramedImages, quantile: float, key: PRNGKeyArray) -> VoxelTemplate:
  """An ellipsoid as high as a quantile of the silhouettes, with random smooth features."""
  height = float(np.clip(np.quantile(silhouette_aspects(images), quantile), *_HEIGHTS))
  occupied = ellipsoid((1.0, _WIDTH, height), _COARSE.voxels)
  noise = jax.random.normal(key, (*occupied.shape, images.values.shape[-1] - 1))
  noise = blurred(noise, _NOISE_BLUR)
  noise = noise + noise[:, ::-1]
  return VoxelTemplate(occupied, noise * (_NOISE / jnp.std(noise)))


def _framed(maps: ImageMaps, level: _Level) -> FramedImages:
  return frame_images(jnp.asarray(maps.features), jnp.asarray(maps.masks), size=level.pixels)


def _cameras(
  posterior: Float[Array, "N K"],
  centers: Float[Array, "N 2"],
  sides: Float[Array, "N"],
  template: VoxelTemplate,
  rotations: Float[Array, "K 4"],
) -> Float[np.ndarray, "N 7"]:
  """The posteriors' means around their best views; the frames give scale and translation."""
  rotations = mean_rotations(jnp.log(posterior), jnp.argmax(posterior, axis=1), rotations)
  views = view_maps(template.occupied, rotations, size=1)
  scale = sides / views.sides
  translation = centers - scale[:, None] * views.centers
  return np.asarray(Camera(scale, translation, rotations).pack())
