"""Other rasterizers on the benchmark's workloads, for those who have them installed."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
  from experiments.studies.render_benchmark import Case, Timed

PEERS = ("pytorch3d",)
_DIST_EPS = 1e-4
_TORCH_THREADS = 2


def functions(peer: str, case: "Case", corners: np.ndarray) -> "dict[str, Timed]":
  """The functions of a peer that the benchmark times: a forward pass, and one with gradient.

  Args:
    peer: one of `PEERS`.
    case: the workload; silhouettes only.
    corners: projected faces [B, F, 3, 3] in this package's image space.

  Raises:
    ValueError: for another peer or mode.
    ImportError: where the peer is not installed.
  """
  if peer not in PEERS:
    raise ValueError(f"found peer {peer!r}; expected one of {', '.join(PEERS)}")
  if case.mode != "silhouette":
    raise ValueError(f"peer {peer} is timed on silhouettes; found mode {case.mode}")
  return _pytorch3d(case, corners)


def _pytorch3d(case: "Case", corners: np.ndarray) -> "dict[str, Timed]":
  """PyTorch3D's CPU rasterizer with SoftRas's coverage, and as many faces a pixel as are needed.

  Its x points left and its y up; blur_radius is the squared distance at which a face is dropped.
  """
  import torch
  from pytorch3d.renderer.blending import BlendParams, sigmoid_alpha_blend
  from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
  from pytorch3d.renderer.mesh.rasterizer import Fragments
  from pytorch3d.structures import Meshes

  torch.set_num_threads(_TORCH_THREADS)
  batch, faces = corners.shape[:2]
  flipped = corners.reshape(batch, 3 * faces, 3) * np.array([-1.0, -1.0, 1.0], np.float32)
  vertices = torch.from_numpy(flipped).requires_grad_(True)
  triangles = torch.arange(3 * faces).reshape(1, faces, 3).expand(batch, -1, -1)
  blend = BlendParams(sigma=case.sigma)

  # `Any`: torch's tensors; torch is not among the dependencies.
  def rasterized(slots: int) -> Any:
    return rasterize_meshes(
      Meshes(vertices, triangles),
      image_size=case.image_size,
      blur_radius=float(np.log(1.0 / _DIST_EPS - 1.0) * case.sigma),
      faces_per_pixel=slots,
      perspective_correct=False,
      clip_barycentric_coords=True,
    )

  slots = 16
  while bool((rasterized(slots)[0][..., -1] >= 0).any()):
    slots *= 2  # exact once no pixel fills its slots

  def forward() -> Any:
    faces_of, depth, weights, distance = rasterized(slots)
    fragments = Fragments(pix_to_face=faces_of, zbuf=depth, bary_coords=weights, dists=distance)
    return sigmoid_alpha_blend(torch.ones(*faces_of.shape, 3), fragments, blend)[..., 3]

  def both() -> Any:
    vertices.grad = None
    forward().sum().backward()
    return vertices.grad

  return {
    f"pytorch3d_{slots}_forward_ms": lambda: forward().detach().numpy(),
    f"pytorch3d_{slots}_forward_backward_ms": lambda: both().numpy(),
  }
