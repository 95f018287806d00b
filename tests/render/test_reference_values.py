"""Values that the specification of the method gives for its rasterizer, at the paper's setting."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.render.render_scenes import in_support
from umr_jax.config.settings import GeometryConfig
from umr_jax.geometry.icosphere import icosphere
from umr_jax.render import rasterize, soft_silhouette
from umr_jax.render.pairs import blur_radius

# 256 pixels, each of 2 x 2 samples.
SAMPLES, SIGMA, DIST_EPS = 512, 1e-5, 1e-10


def sphere(scale, level=3):
  """The projected faces [F, 3, 3] of the initial sphere under a camera of this scale."""
  vertices, faces = icosphere(level)
  projected = np.asarray(vertices, np.float64) * scale + np.array([0.0, 0.0, 5.0])
  return projected[faces].astype(np.float32)


def test_the_blur_radius_is_the_published_one():
  assert float(blur_radius(jnp.float32(SIGMA), DIST_EPS)) == pytest.approx(0.0151743, rel=1e-4)


def test_a_sphere_at_half_scale_covers_pi_sixteenths_of_the_image():
  alpha = soft_silhouette(
    jnp.asarray(sphere(0.5)), image_size=256, sigma=SIGMA, dist_eps=DIST_EPS, antialias=2
  )
  assert float(alpha.mean()) == pytest.approx(np.pi * 0.25 / 4.0, rel=0.02)


def test_as_many_faces_touch_a_pixel_as_the_specification_counts():
  """What the binning must find: a handful of the 1280 faces for each pixel, 21 at most."""
  radius = float(blur_radius(jnp.float32(SIGMA), DIST_EPS))
  centers = (2 * np.arange(SAMPLES) + 1 - SAMPLES) / SAMPLES
  counts = np.zeros((SAMPLES, SAMPLES), int)
  for corners in sphere(0.7)[..., :2].astype(np.float64):
    low = np.searchsorted(centers, corners.min(axis=0) - radius)
    high = np.searchsorted(centers, corners.max(axis=0) + radius)
    x, y = (slice(*ends) for ends in zip(low, high, strict=True))
    points = np.stack(np.meshgrid(centers[x], centers[y]), axis=-1)
    counts[y, x] += in_support(corners, points, radius)
  touched = counts[counts > 0]
  assert np.median(touched) == 4
  # 20 from this side; the specification does not say from which it counted.
  assert 18 <= touched.max() <= 21


def test_an_isolated_face_is_projected_to_the_centroid_of_its_pixels():
  """Fully visible; the centroid of one outside the image is the origin."""
  seen = np.array([[-0.5, -0.25, 2.0], [0.25, -0.5, 2.0], [0.0, 0.5, 2.0]])
  hidden = np.array([[3.0, 3.0, 2.0], [4.0, 3.0, 2.0], [3.0, 4.0, 2.0]])
  faces = jnp.asarray(np.stack([seen, hidden]), jnp.float32)
  fragments = rasterize(faces, jnp.ones((2, 1, 1)), image_size=64, sigma=1e-6)
  row, column = np.nonzero(np.asarray(fragments.face_ids) == 0)
  centroid = (2 * np.array([column.mean(), row.mean()]) + 1 - 64) / 64
  np.testing.assert_allclose(fragments.landing[0], centroid, atol=2e-3)
  np.testing.assert_array_equal(fragments.landing[1], 0.0)
  np.testing.assert_array_equal(fragments.visible, [True, False])


def test_the_default_uv_map_has_the_published_size():
  # 2 ** floor(log2(sqrt(656) * 6)) rows, for 32 + 624 rows of 6 x 6 texels.
  assert GeometryConfig().uv_height == 2 ** int(np.log2(np.sqrt(32 + 624) * 6)) == 128
