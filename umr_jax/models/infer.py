"""From a config to a network, and from photographs to shapes, cameras and flow."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from umr_jax.config.settings import Config
from umr_jax.geometry.topology import build_topology
from umr_jax.models.assemble import assemble_vertices, finer_flow
from umr_jax.models.flow import camera_flow, move_inside
from umr_jax.models.umr_net import UMRNet
from umr_jax.types import EMState, Template, Topology, checked, network_round


@struct.dataclass
class Inference:
  """What the network and the template together say of B photographs."""

  vertices: Float[Array, "B V 3"]  # object space
  cameras: Float[Array, "B K 7"]
  camera_probs: Float[Array, "B K"]
  camera: Float[Array, "B 7"]  # the most probable one
  flow_map: Float[Array, "B Hu Wu 2"]  # image positions
  shape_code: Float[Array, "B Z"]
  # The silhouette as pixels, in [0, 1], where the network has a head for it.
  mask: Float[Array, "B h w"] | None = None
  # With model.flow=projected: what the network adds to `camera_flow`; see `tied_flow`.
  flow_correction: Float[Array, "B Hu Wu 2"] | None = None
  # Whether vertices and camera were fitted to `mask` after the network.
  refined: bool = struct.field(pytree_node=False, default=False)


Infer = Callable[[Any, Any, Template, Array], Inference]


def build_topology_from(config: Config) -> Topology:
  """The mesh that a config asks for."""
  geometry = config.geometry
  return build_topology(
    geometry.level,
    texels_per_side=geometry.texels_per_side,
    symmetric_texture=geometry.symmetric_texture,
  )


def build_net(config: Config, *, hypotheses: int) -> UMRNet:
  """The network that a config asks for, with so many cameras per image."""
  model = config.model
  return UMRNet(
    num_half=build_topology_from(config).num_half,
    hypotheses=hypotheses,
    uv_height=config.geometry.uv_height,
    encoder_width=model.encoder_width,
    feature_size=model.feature_size,
    code_size=model.code_size,
    texture_stem=model.texture_stem,
    sample_code=model.sample_code,
    camera_pose=model.camera_pose,
    camera_elevation=model.camera_elevation,
    camera_roll=model.camera_roll,
    camera_spread=model.camera_spread,
    norm=model.norm,
    flow=model.flow,
    encoder=model.encoder,
    mask_head=config.loss.segmentation > 0.0,
  )


def make_infer(net: UMRNet, topology: Topology) -> Infer:
  """Builds the function that reconstructs photographs.

  Args:
    net: the network.
    topology: the mesh.

  Returns:
    infer(params, collections, template, images), pure and ready to be jitted, where `collections`
    are the network's other variables (`TrainState.collections`): BatchNorm uses its
    running statistics and the code is its mean, so that an image's result depends on no other image
    and on no key.
  """

  @checked
  def infer(
    params: Any, collections: Any, template: Template, images: Float[Array, "B H W 3"]
  ) -> Inference:
    variables = {"params": params, **collections}
    prediction: Any = net.apply(variables, images, train=False)
    best = jnp.argmax(prediction.camera_logits, axis=-1)
    camera = jnp.take_along_axis(prediction.cameras, best[:, None, None], axis=1)[:, 0]
    vertices = assemble_vertices(prediction.half_offsets, template, topology)
    tied = net.flow == "projected"
    found = Inference(
      vertices=vertices,
      cameras=prediction.cameras,
      camera_probs=jax.nn.softmax(prediction.camera_logits, axis=-1),
      camera=camera,
      flow_map=prediction.flow_map,
      shape_code=prediction.shape_code,
      flow_correction=prediction.flow_map if tied else None,
      mask=None if prediction.mask_logits is None else jax.nn.sigmoid(prediction.mask_logits),
    )
    return with_tied_flow(found, topology) if tied else found

  return infer


def trained(config: Config, em_state: EMState, *, step: int) -> tuple[Infer, Topology]:
  """What reconstructs photographs with a checkpoint's parameters, and its mesh.

  Args:
    config: of the run.
    em_state: of the checkpoint.
    step: of the checkpoint.
  """
  topology = build_topology_from(config)
  net = build_net(config, hypotheses=config.hypotheses(network_round(em_state, step)))
  return make_infer(net, topology), topology


@checked
def tied_flow(found: Inference, topology: Topology, *, height: int) -> Float[Array, "B hu wu 2"]:
  """With model.flow=projected: the flow for a UV map of `height` rows, or the flow map's if more.

  The network's correction makes up for meshes that lie beside their photograph. A refined one lies
  on it: the correction would move points that are in their place, and is left out; what is beside
  the silhouette all the same looks at its nearest pixel.
  """
  height = max(height, found.flow_map.shape[1])
  seen = camera_flow(found.vertices, found.camera, topology, uv_height=height)
  if found.refined:
    return move_inside(seen, jnp.asarray(found.mask))
  return seen + finer_flow(jnp.asarray(found.flow_correction), height)


def with_tied_flow(found: Inference, topology: Topology) -> Inference:
  """The prediction with the flow that belongs to its mesh and camera."""
  flow_map = tied_flow(found, topology, height=found.flow_map.shape[1])
  return dataclasses.replace(found, flow_map=flow_map)


@checked
def fine_flow(found: Inference, topology: Topology, *, height: int) -> Float[Array, "B hu wu 2"]:
  """The flow for a texture of `height` rows, or of as many as the flow map has, if that has more.

  What a network says of the flow is smooth and is interpolated; what the camera sees is known at
  every pixel of the texture.
  """
  if found.flow_correction is None:
    return finer_flow(found.flow_map, height)
  return tied_flow(found, topology, height=height)
