"""What is known of one image after prediction, and what can be done with it."""

import dataclasses
import os
import pathlib

import jax.numpy as jnp
import numpy as np
import trimesh

from umr_jax.geometry import camera as camera_lib
from umr_jax.predict.export import export_mesh, textured_mesh
from umr_jax.predict.view_modes import ViewMode, view_modes
from umr_jax.predict.views import render_views, texture_texels
from umr_jax.types import Topology


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Reconstruction:
  """One image's reconstruction. Arrays are NumPy; S, Hu and Wu are the checkpoint's sizes.

  The texture is read from the image itself, not from the smaller crop that the network reads.
  """

  vertices: np.ndarray  # [V, 3] float32, object space
  faces: np.ndarray  # [F, 3] int32, wound outward
  camera: np.ndarray  # [7], the most probable one, for the crop
  cameras: np.ndarray  # [K, 7], every hypothesis
  camera_probs: np.ndarray  # [K], the network's own
  # The posterior over a grid of views: how likely each is, calibrated on the training images, and
  # the camera in it; None for a model without view search.
  view_probs: np.ndarray | None  # [Kv]
  view_cameras: np.ndarray | None  # [Kv, 7]
  box: tuple[float, float, float, float]  # x0, y0, x1, y1 of the square crop, in input pixels
  silhouette: np.ndarray  # [S, S] float32 in [0, 1], in the crop
  part_probs: np.ndarray | None  # [S, S, P + 1], background first; None without part maps
  texture: np.ndarray  # [Hu, Wu, 3] uint8
  flow: np.ndarray  # [Hu, Wu, 2], where in the crop each pixel of the texture comes from
  flow_map: np.ndarray  # [hu, wu, 2], the same at the network's resolution: keypoint transfer's
  image: np.ndarray  # [S, S, 3] float32, the crop that the network reads
  template: np.ndarray  # [V, 3], the category's mean shape
  topology: Topology  # of the mesh, with its UV layout
  step: int  # of the checkpoint

  def __repr__(self) -> str:
    return (
      f"Reconstruction({len(self.vertices)} vertices, {len(self.cameras)} cameras, crop "
      f"{tuple(round(value, 1) for value in self.box)} at {len(self.silhouette)} px, "
      f"step {self.step})"
    )

  def view_modes(self, least: float = 0.05) -> list[ViewMode]:
    """What the image may show: modes of the posterior over views, the most probable first.

    Args:
      least: the probability of a mode; smaller ones are left out.

    Raises:
      ValueError: for a model without a posterior over views.
    """
    if self.view_probs is None or self.view_cameras is None:
      raise ValueError(
        "this model has no posterior over views: it was trained without geometry.init=view_search, "
        "or by an earlier version"
      )
    return view_modes(self.view_probs, self.view_cameras, least=least)

  def export(self, path: str | os.PathLike[str]) -> pathlib.Path:
    """Writes .glb, .obj (with .mtl and .png), .ply or .html; see `export.export_mesh`."""
    return export_mesh(path, self.vertices, self.texture, self.topology)

  def to_trimesh(self) -> trimesh.Trimesh:
    """The textured mesh in object space (z up), for trimesh's own tools."""
    return textured_mesh(self.vertices, self.texture, self.topology)

  def render(self, image_size: int = 256, azimuth: float = 0.0) -> np.ndarray:
    """An image of the textured mesh from the predicted camera, or turned before it.

    Args:
      image_size: pixels of a side, S. Each new size compiles once.
      azimuth: degrees by which the object is turned about the camera's vertical.

    Returns:
      [S, S, 4] float32 in [0, 1]: colour, not multiplied by alpha (0 where nothing is), and alpha.
    """
    turned = camera_lib.rotate_view(jnp.asarray(self.camera), float(azimuth))
    texels = texture_texels(self.texture.astype(np.float32) / np.float32(255), self.topology)
    return render_views(
      self.vertices[None],
      np.asarray(turned)[None],
      texels[None],
      self.topology,
      image_size=image_size,
    )[0]
