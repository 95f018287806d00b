"""A made-up thing, seen from known views: what pose search has to find."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from umr_jax.init.voxel_template import (
  VoxelTemplate,
  view_maps,
  voxel_centers,
)
from umr_jax.models.camera_heads import upright_rotation
from umr_jax.models.framed_images import FramedImages
from umr_jax.models.view_template import render_features

RESOLUTION = 24


def planted_template() -> VoxelTemplate:
  """A long body with a cabin nearer to one end, whose features tell where on it a voxel lies."""
  x, y, z = np.moveaxis(voxel_centers(RESOLUTION), -1, 0)
  body = (np.abs(x) < 0.95) & (np.abs(y) < 0.4) & (np.abs(z + 0.1) < 0.2)
  cabin = (np.abs(x + 0.25) < 0.4) & (np.abs(y) < 0.32) & (np.abs(z - 0.2) < 0.15)
  features = np.stack([x, np.cos(5.0 * x), np.abs(y), np.cos(7.0 * y), z, np.sin(6.0 * z)], axis=-1)
  features = (features - features.mean((0, 1, 2))) / (features.std((0, 1, 2)) * np.sqrt(6.0))
  return VoxelTemplate(jnp.asarray(body | cabin), jnp.asarray(features, jnp.float32))


def planted_views(count: int, seed: int = 0) -> Float[Array, "N 4"]:
  """Rotations from all around the object, from level to 35 degrees above it."""
  rng = np.random.default_rng(seed)
  azimuth = np.arange(count) * (360.0 / count) + rng.uniform(-3.0, 3.0, count)
  angles = (azimuth, rng.uniform(0.0, 35.0, count), rng.uniform(-4.0, 4.0, count))
  return upright_rotation(*(jnp.asarray(angle, jnp.float32) for angle in angles))


def planted_images(count: int, *, noise: float = 0.2, seed: int = 0) -> FramedImages:
  """The planted template in those views, with noise on the features of the object."""
  template = planted_template()
  maps = view_maps(template.occupied, planted_views(count, seed), size=24)
  values = np.asarray(render_features(template.features, maps.voxels))
  shown = values[..., -1:]
  features = values[..., :-1] + noise * np.random.default_rng(seed).normal(
    size=values[..., :-1].shape
  )
  return FramedImages(
    values=jnp.asarray(np.concatenate([features * shown, shown], axis=-1), jnp.float32),
    centers=maps.centers,
    sides=maps.sides,
  )
