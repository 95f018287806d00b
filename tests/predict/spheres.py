"""Predictions of spheres, and what silhouettes are said of them."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from tests.tiny import plain
from umr_jax.config.settings import RefineConfig
from umr_jax.geometry import camera
from umr_jax.geometry.symmetry import symmetrize
from umr_jax.models.infer import Inference, build_topology_from
from umr_jax.predict.fit_mesh import Fitting
from umr_jax.render import soft_silhouette
from umr_jax.types import Model, Template


@dataclasses.dataclass(frozen=True, kw_only=True)
class LooseConfig(RefineConfig):
  """Steps large enough, and meshes loose enough, for a test."""

  learning_rate: float = 0.008
  laplacian: float = 0.1


CONFIG = dataclasses.replace(
  plain(
    geometry={"level": 1, "texels_per_side": 2, "uv_height": 16},
    render={"image_size": 32, "sigma": 3e-4},
    loss={"mask": 9.0, "segmentation": 1.0, "deformation": 0.05, "orientation": 0.0},
  ),
  refine=LooseConfig(steps=80),
)
FITTING = Fitting.from_config(CONFIG)
TOPOLOGY = build_topology_from(CONFIG)
HALF = jnp.asarray(TOPOLOGY.sphere[: TOPOLOGY.num_half])
TEMPLATE = Template(half_vertices=HALF)
# What test-time optimisation reads of a model; tests add to it.
MODEL = Model(network=None, topology=TOPOLOGY, params={}, batch_stats={}, template=TEMPLATE)
# The object's x axis to the right, z up.
UPRIGHT = (np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0)


def drawn(vertices, cameras):
  corners = camera.face_vertices(camera.project(vertices, cameras), TOPOLOGY.faces)
  return soft_silhouette(corners, image_size=32, sigma=3e-4)


def sphere(*, stretch, cameras):
  """A batch of spheres that are longer or shorter along x, under cameras (scale, tx, ty)."""
  cameras = jnp.asarray([[*place, *UPRIGHT] for place in cameras], jnp.float32)
  scale = jnp.asarray([[stretch, 1.0, 1.0]], jnp.float32)
  vertices = symmetrize(HALF * scale, num_center=TOPOLOGY.num_center)
  return jnp.broadcast_to(vertices[None], (len(cameras), *vertices.shape)), cameras


def prediction(*, mask, cameras, **more):
  """Spheres, of which a network says that their silhouettes are `mask`."""
  count = len(cameras)
  vertices, cameras = sphere(stretch=1.0, cameras=cameras)
  others = jnp.asarray([0.3, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0], jnp.float32)
  every = jnp.stack([jnp.broadcast_to(others[None], cameras.shape), cameras], axis=1)
  return Inference(
    half_offsets=jnp.zeros((count, *HALF.shape)),
    vertices=vertices,
    cameras=every,
    camera_probs=jnp.broadcast_to(jnp.array([[0.2, 0.8]]), (count, 2)),
    camera=cameras,
    flow_map=jnp.zeros((count, 16, 32, 2)),
    shape_code=jnp.ones((count, 4)),
    mask=mask,
    **more,
  )
