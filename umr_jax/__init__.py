"""Category-specific 3D reconstruction from images and silhouettes, in JAX.

From a folder of images of one category of objects, with silhouettes and nothing else, `umr_jax`
learns a category template and a network that turns one image into a textured mesh, the camera
that took it, and correspondences to every other image. It reimplements and extends UMR (Li et
al., "Self-supervised Single-view 3D Reconstruction via Semantic Consistency", ECCV 2020).

Dimension letters, used in every shape annotation:
  B image, K camera hypothesis, V vertex (Vh: the learned half), F face, E edge, T texel of a face,
  P part, N point, H W pixel, C channel, Hu Wu pixel of the UV map.
Arrays are ordered [B, K, ..., xyz]; images are NHWC in [0, 1]; masks are float in [0, 1]. Where a
part map has a background it is channel 0.

Frames, obeyed everywhere:
  Image space: x right, y DOWN; [-1, 1] spans the image from outer pixel edge to outer pixel edge,
    so that the centre of column i of W is at (2 i + 1 - W) / W. One rule for rasterizing, sampling
    and keypoints. z points into the scene: smaller is nearer.
  UV space: like image space, for the UV map.
  Object space: x fore-aft, y left-right (the mirror plane is y = 0), z up; the unit of length is
    the radius of the initial sphere.
  Cameras are weak perspective, [scale, tx, ty, qw, qx, qy, qz]; quaternions are Hamilton, unit,
    (w, x, y, z), and rotate a point actively: q X q*. `geometry.camera.project` maps object space
    to image space and adds 5 to the depth (more for scales above 2: `camera.depth_offset`).
  The only flip to y up is in `export.py`, where a GLB takes (x, y, z) to (x, z, -y).
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from umr_jax.predict import *  # noqa: F403

__version__ = "0.1.0"
_PUBLIC: tuple[str, ...] = importlib.import_module("umr_jax.predict").__all__
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> object:
  """Public names load on first use, so that `import umr_jax.render` stays light."""
  if name not in _PUBLIC:
    raise AttributeError(f"module 'umr_jax' has no attribute {name!r}")
  package = importlib.import_module("umr_jax.predict")
  # `predict` is a function and also the package that holds it. Whoever imports the package binds it
  # to the name, so the name always means the package, which is callable like the function.
  value = package if name == "predict" else getattr(package, name)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted(__all__)
