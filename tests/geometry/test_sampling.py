"""bilinear_sample: golden values, a loop, gradients, and what lies outside."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from scipy import ndimage

from umr_jax.geometry.sampling import average_pool, bilinear_sample, choose_rows, trilinear_sample


def _twin(image, points):
  """One image and its points, pixel by pixel: [H, W, C] and [N, 2]."""
  height, width, channels = image.shape
  values = np.zeros((len(points), channels))
  for n, (x, y) in enumerate(np.asarray(points, np.float64)):
    for row, column in np.ndindex(height, width):
      center = (2 * column + 1 - width) / width, (2 * row + 1 - height) / height
      weight_x = max(0.0, 1.0 - abs(x - center[0]) * width / 2.0)
      weight_y = max(0.0, 1.0 - abs(y - center[1]) * height / 2.0)
      values[n] += weight_x * weight_y * image[row, column]
  return values


@pytest.fixture
def image(rng):
  return rng.normal(size=(5, 7, 3)).astype(np.float32)


def test_reproduces_the_released_texture_sampling(golden_geometry):
  image = jnp.moveaxis(jnp.asarray(golden_geometry["texture/image"]), 1, -1)
  flow = jnp.asarray(golden_geometry["texture/flow"])
  sampled = bilinear_sample(image, flow.reshape(3, -1, 2)).reshape(3, 80, 3, 3, 3)
  np.testing.assert_allclose(sampled, golden_geometry["texture/sampled"], atol=2e-6)


def test_reproduces_the_released_barrier_loss(golden_geometry):
  barrier = jnp.moveaxis(jnp.asarray(golden_geometry["texture/dt"]), 1, -1)
  flow = jnp.asarray(golden_geometry["texture/flow"])
  loss = jnp.mean(bilinear_sample(barrier, flow.reshape(3, -1, 2)))
  np.testing.assert_allclose(loss, golden_geometry["texture/dt_loss"], rtol=1e-5)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_matches_the_loop_it_vectorises_inside_and_outside(image, rng, transform):
  images = np.stack([image, image[::-1]])[None]
  points = rng.uniform(-1.4, 1.4, size=(1, 2, 60, 2)).astype(np.float32)
  sampled = transform(bilinear_sample)(jnp.asarray(images), jnp.asarray(points))
  for k in range(2):
    np.testing.assert_allclose(sampled[0, k], _twin(images[0, k], points[0, k]), atol=3e-6)


def test_works_without_a_batch_and_with_vmap(image, rng):
  points = jnp.asarray(rng.uniform(-1.0, 1.0, size=(4, 6, 2)), jnp.float32)
  one = bilinear_sample(jnp.asarray(image), points[0])
  np.testing.assert_allclose(one, _twin(image, points[0]), atol=3e-6)
  images = jnp.broadcast_to(image, (4, *image.shape))
  np.testing.assert_allclose(
    jax.vmap(bilinear_sample)(images, points), bilinear_sample(images, points), atol=1e-6
  )


def test_at_pixel_centers_it_is_the_pixel(image):
  row, column = np.meshgrid(np.arange(5), np.arange(7), indexing="ij")
  points = np.stack([(2 * column + 1 - 7) / 7, (2 * row + 1 - 5) / 5], axis=-1).reshape(-1, 2)
  sampled = bilinear_sample(jnp.asarray(image), jnp.asarray(points, jnp.float32))
  np.testing.assert_allclose(sampled, image.reshape(-1, 3), atol=2e-6)


def test_a_ramp_reads_back_its_position():
  # Linear in x and y: exact between the outermost centres, a factor 1/2 on the outer edge.
  center = (2.0 * np.arange(8) + 1 - 8) / 8
  ramp = np.stack(np.meshgrid(center, center), axis=-1).astype(np.float32)
  points = jnp.asarray([[0.3, -0.7], [-0.875, 0.1], [1.0, 0.0]])
  expected = [[0.3, -0.7], [-0.875, 0.1], [0.4375, 0.0]]
  np.testing.assert_allclose(bilinear_sample(jnp.asarray(ramp), points), expected, atol=1e-6)


def test_the_gradient_of_positions_is_the_slope():
  center = (2.0 * np.arange(8) + 1 - 8) / 8
  ramp = jnp.asarray(np.stack(np.meshgrid(center, center), axis=-1), jnp.float32)
  # The second lies on a pixel's centre, where the two cells agree about a ramp.
  points = jnp.asarray([[0.3, -0.7], [0.125, 0.125], [-0.5, 0.2]])
  grad = jax.grad(lambda p: bilinear_sample(ramp, p).sum())(points)
  np.testing.assert_allclose(grad, np.ones((3, 2)), atol=1e-5)


def test_gradients_match_central_differences(image, rng):
  points = rng.uniform(-1.1, 1.1, size=(40, 2))
  # Away from kinks: a cell's border is where the position in pixels is whole.
  pixels = (points + 1.0) * np.array([7.0, 5.0]) / 2.0 - 0.5
  points = points[(np.abs(pixels - np.round(pixels)) > 0.02).all(axis=-1)]
  weight = rng.normal(size=(len(points), 3))

  def loss(image, points):
    return jnp.sum(bilinear_sample(image, points) * jnp.asarray(weight, jnp.float32))

  arguments = jnp.asarray(image), jnp.asarray(points, jnp.float32)
  of_image, of_points = jax.grad(loss, argnums=(0, 1))(*arguments)
  step = 1e-4
  for axis in range(2):
    shift = step * np.eye(2)[axis]
    slope = (_twin(image, points + shift) - _twin(image, points - shift)) / (2.0 * step)
    np.testing.assert_allclose(of_points[:, axis], (slope * weight).sum(axis=-1), atol=1e-4)
  # Linear in the image: the gradient is the weight that each pixel had.
  for pixel in [(0, 0, 0), (2, 3, 1), (4, 6, 2)]:
    one = np.zeros_like(image)
    one[pixel] = 1.0
    np.testing.assert_allclose(of_image[pixel], (_twin(one, points) * weight).sum(), atol=1e-5)


def test_far_outside_it_is_zero_with_zero_gradients(image):
  points = jnp.asarray([[3.0, 0.0], [0.0, -50.0], [1e30, 1e30], [-jnp.inf, 0.0]])
  value, grads = jax.value_and_grad(lambda i, p: jnp.sum(bilinear_sample(i, p)), argnums=(0, 1))(
    jnp.asarray(image), points
  )
  assert value == 0.0
  for grad in grads:
    np.testing.assert_array_equal(grad, np.zeros_like(grad))


def test_a_nan_position_is_not_hidden(image):
  points = jnp.asarray([[jnp.nan, 0.0], [0.0, 0.0]])
  sampled = bilinear_sample(jnp.asarray(image), points)
  assert np.isnan(sampled[0]).all()
  assert np.isfinite(sampled[1]).all()


def test_an_image_of_one_pixel_is_a_tent():
  points = jnp.asarray([[0.0, 0.0], [1.0, 0.0], [0.5, -0.5], [2.0, 0.0]])
  sampled = bilinear_sample(jnp.ones((1, 1, 1)), points)
  np.testing.assert_allclose(sampled[:, 0], [1.0, 0.5, 0.5625, 0.0], atol=1e-6)


def test_points_of_another_batch_are_refused(image):
  with pytest.raises(jaxtyping.TypeCheckError):
    bilinear_sample(jnp.asarray(image)[None], jnp.zeros((2, 4, 2)))


def test_volumes_are_read_as_scipy_reads_them(rng):
  grid = rng.normal(size=(4, 5, 6, 2)).astype(np.float32)
  points = rng.uniform(-1.3, 1.3, size=(80, 3)).astype(np.float32)
  cells = [(points[:, i] + 1.0) * 0.5 * n - 0.5 for i, n in enumerate(grid.shape[:3])]
  padded = np.pad(grid, [(1, 1)] * 3 + [(0, 0)])  # what fades to zero lies one cell outside
  expected = np.stack(
    [
      ndimage.map_coordinates(padded[..., c].astype(np.float64), np.array(cells) + 1.0, order=1)
      for c in range(2)
    ],
    axis=-1,
  )
  np.testing.assert_allclose(
    trilinear_sample(jnp.asarray(grid), jnp.asarray(points)), expected, atol=2e-5
  )
  gradient = jax.grad(lambda g: jnp.sum(trilinear_sample(g, jnp.zeros((1, 3)))))(jnp.asarray(grid))
  np.testing.assert_allclose(jnp.sum(gradient), 2.0, rtol=1e-5)


def test_pooling_takes_means_of_blocks():
  image = jnp.arange(16.0).reshape(1, 4, 4)
  np.testing.assert_allclose(average_pool(image, 2)[0], [[2.5, 4.5], [10.5, 12.5]])


def test_rows_are_chosen_image_by_image():
  values = jnp.arange(12.0).reshape(2, 3, 2)
  np.testing.assert_array_equal(choose_rows(values, jnp.array([2, 0])), [[4.0, 5.0], [6.0, 7.0]])
