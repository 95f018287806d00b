"""How far the rasterizer is from its own formulae in float64, on whole meshes.

The NumPy `reference` holds every face at every pixel, so it renders an image in square crops, each
with the faces near it. A crop is the same problem, moved and magnified: distances grow with
the magnification, and sigma with its square.
"""

import jax
import jax.numpy as jnp
import numpy as np

from umr_jax.render import reference, soft_rasterize, soft_silhouette

_CROP = 32  # pixels a side, at most


def errors(
  corners: np.ndarray, textures: np.ndarray, *, image_size: int, sigma: float
) -> dict[str, float]:
  """Compares an image and its gradients with float64, at a random cotangent.

  Args:
    corners: projected faces [F, 3, 3].
    textures: [F, T, C].
    image_size: pixels a side.
    sigma: softness of outlines.

  Returns:
    `alpha_max_error` and `color_max_error` over all pixels; `silhouette_gradient_error` on x and y
    of the corners for alpha alone, `rgb_gradient_error` on all coordinates for colour and alpha,
    and `texture_gradient_error`: norms of the difference over norms of the float64 gradient.
  """
  corners, textures = (np.asarray(x, np.float32) for x in (corners, textures))
  rng = np.random.default_rng(3)
  shape = (image_size, image_size, textures.shape[-1] + 1)
  cotangent = rng.standard_normal(shape).astype(np.float32)
  alone = cotangent * (np.arange(shape[-1]) == shape[-1] - 1)
  image, on_corners, on_textures = _in_crops(corners, textures, cotangent, image_size, sigma)
  _, on_outline, _ = _in_crops(corners, textures, alone, image_size, sigma)

  textured = jax.jit(lambda c, t: soft_rasterize(c, t, image_size=image_size, sigma=sigma))
  outline = jax.jit(lambda c: soft_silhouette(c, image_size=image_size, sigma=sigma))
  image_found, vjp = jax.vjp(textured, jnp.asarray(corners), jnp.asarray(textures))
  found_corners, found_textures = vjp(jnp.asarray(cotangent))
  found_alpha, outline_vjp = jax.vjp(outline, jnp.asarray(corners))
  (found_outline,) = outline_vjp(jnp.asarray(cotangent[..., -1]))
  return {
    "alpha_max_error": float(np.abs(found_alpha - image[..., -1]).max()),
    "color_max_error": float(np.abs(image_found - image)[..., :-1].max()),
    "silhouette_gradient_error": _relative(found_outline[..., :2], on_outline[..., :2]),
    "rgb_gradient_error": _relative(found_corners, on_corners),
    "texture_gradient_error": _relative(found_textures, on_textures),
  }


def _relative(found: jax.Array, expected: np.ndarray) -> float:
  difference = np.linalg.norm(np.asarray(found, np.float64) - expected)
  return float(difference / np.linalg.norm(expected))


def _in_crops(
  corners: np.ndarray, textures: np.ndarray, cotangent: np.ndarray, size: int, sigma: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The image and the gradients on corners and textures, all float64."""
  corners, textures = corners.astype(float), textures.astype(float)
  side = max(s for s in range(1, min(size, _CROP) + 1) if size % s == 0)
  zoom = size / side
  # The reference takes float32's sigma, as the rasterizer does.
  softness = float(np.float32(sigma))
  options = reference.Options((side, side), sigma=softness * zoom**2)
  reach = np.sqrt(softness * np.log(1.0 / options.dist_eps - 1.0))
  image, on_corners = np.zeros(cotangent.shape), np.zeros(corners.shape)
  on_textures = np.zeros(textures.shape)
  scale = np.array([zoom, zoom, 1.0])
  for row in range(0, size, side):
    for column in range(0, size, side):
      middle = np.array([2 * column + side - size, 2 * row + side - size]) / size
      moved = (corners - np.array([*middle, 0.0])) * scale
      within = 1.0 + reach * zoom
      near = ((moved.min(1)[:, :2] <= within) & (moved.max(1)[:, :2] >= -within)).all(axis=-1)
      here = np.s_[row : row + side, column : column + side]
      if not near.any():
        continue
      image[here] = reference.render(moved[near], textures[near], options).rgba
      partials = reference.gradients(moved[near], textures[near], cotangent[here], options)
      on_corners[near] += partials[0] * scale
      on_textures[near] += partials[1]
  return image, on_corners, on_textures
