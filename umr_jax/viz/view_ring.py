"""A ring of views: mean images around the object; one look tells whether cameras are right.

Cameras that are found for many images agree with one another where means of all images of one
azimuth are sharp, and with the template where its outline is theirs.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from umr_jax.geometry import camera as camera_lib
from umr_jax.models.camera_heads import upright_rotation
from umr_jax.predict.views import over_white, shaded_views
from umr_jax.types import Topology
from umr_jax.viz.images import labelled_grid

RING = 12  # views
_CELL = 112  # pixels of a side of one view
_MARGIN = 8  # this share of a frame is left out on each side: long objects alone reach it


def view_ring(
  objects: Float[np.ndarray, "N S S 4"],
  cameras: Float[np.ndarray, "N 7"],
  vertices: Float[np.ndarray, "V 3"],
  topology: Topology,
) -> np.ndarray:
  """Mean images by azimuth, their mean silhouettes, and the template from there.

  Args:
    objects: RGB and silhouette, each in a frame around the silhouette; colours are zero outside.
    cameras: of the images; the rotations count.
    vertices: of the template.
    topology: of the template.

  Returns:
    uint8 [H, W, 3]: three rows, a column for each azimuth under how many images have it.
  """
  number = azimuth_numbers(cameras)
  counts = np.bincount(number, minlength=RING)
  margin = objects.shape[1] // _MARGIN
  objects = objects[:, margin:-margin, margin:-margin]
  means = np.stack([_mean(objects[number == k]) for k in range(RING)])
  colors = means[..., :3] / np.maximum(means[..., 3:], 1e-3)
  shown = np.concatenate([np.clip(colors, 0.0, 1.0), means[..., 3:]], axis=-1)
  meshes = np.repeat(np.asarray(vertices, np.float32)[None], RING, axis=0)
  template = shaded_views(meshes, _ring_cameras(cameras, vertices), topology, image_size=_CELL)
  rows = [
    [over_white(view) for view in shown],
    [np.repeat(view[..., 3:], 3, axis=-1) for view in means],
    [over_white(view) for view in template],
  ]
  names = [f"{360 * k // RING}: {count}" for k, count in enumerate(counts)]
  return labelled_grid(rows, names, cell=_CELL)


def azimuth_numbers(cameras: Float[np.ndarray, "N 7"]) -> np.ndarray:
  """The nearest of the ring's azimuths for each camera [N], from 0.

  Azimuth 0 shows the object from its side, with its x axis to the right; it grows as that of
  `upright_rotation`.
  """
  rotations = np.asarray(camera_lib.rotation(jnp.asarray(cameras, jnp.float32)))
  # Where the horizontal axes x and y lie across the line of sight.
  azimuth = np.arctan2(rotations[:, 2, 0], rotations[:, 2, 1])
  return np.round(azimuth * RING / (2.0 * np.pi)).astype(int) % RING


def _ring_cameras(cameras: np.ndarray, vertices: np.ndarray) -> np.ndarray:
  """Cameras [RING, 7] around the template, at the images' usual height, that fit it in."""
  rotations = np.asarray(camera_lib.rotation(jnp.asarray(cameras, jnp.float32)))
  elevation = np.degrees(np.arcsin(np.clip(-np.median(rotations[:, 2, 2]), -1.0, 1.0)))
  azimuth = jnp.arange(RING, dtype=jnp.float32) * (360.0 / RING)
  around = upright_rotation(azimuth, jnp.full(RING, elevation, jnp.float32), jnp.zeros(RING))
  radius = max(float(np.linalg.norm(vertices, axis=-1).max()), 1e-6)
  scale = jnp.full(RING, 0.95 / radius, jnp.float32)
  return np.asarray(camera_lib.Camera(scale, jnp.zeros((RING, 2)), around).pack())


def _mean(objects: np.ndarray) -> np.ndarray:
  return objects.mean(axis=0) if len(objects) else np.zeros(objects.shape[1:], np.float32)
