"""From a config or checkpoint to a model, and from images to shapes, cameras and flow."""

import dataclasses
import os
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from umr_jax.config.build import from_saved
from umr_jax.config.settings import Config
from umr_jax.geometry.sampling import choose_rows
from umr_jax.geometry.topology import build_topology
from umr_jax.models.assemble import assemble_vertices, upsample_flow
from umr_jax.models.checkpoint import Snapshot, read_checkpoint
from umr_jax.models.flow import camera_flow, clamp_to_mask
from umr_jax.models.frozen import COLLECTION, FrozenEfficientNet
from umr_jax.models.umr_net import UMRNet
from umr_jax.types import EMState, Model, Network, Prediction, Topology, TrainState, checked


@struct.dataclass
class Inference:
  """What a model predicts of B images."""

  half_offsets: Float[Array, "B Vh 3"]  # of the learned half, from the template
  vertices: Float[Array, "B V 3"]  # object space
  cameras: Float[Array, "B K 7"]
  camera_probs: Float[Array, "B K"]
  camera: Float[Array, "B 7"]  # the most probable one
  flow_map: Float[Array, "B Hu Wu 2"]  # image positions
  shape_code: Float[Array, "B Z"]
  # The silhouette as pixels, in [0, 1], where the network has a head for it.
  mask: Float[Array, "B h w"] | None = None
  # With `Model.flow` "projected": the network's correction of `camera_flow`; see `texture_flow`.
  flow_correction: Float[Array, "B Hu Wu 2"] | None = None
  # With `Model.view_template` or `canonical_features`: the frozen encoder's coarsest maps, which
  # these are compared with.
  encoded: Float[Array, "B _ _ _"] | None = None
  # With `encoded` and `mask`, after `predict.test_time`: the posterior over the template's views,
  # and the camera of each.
  view_probs: Float[Array, "B Kv"] | None = None
  view_cameras: Float[Array, "B Kv 7"] | None = None
  # Whether vertices and camera were fitted to `mask` after the network.
  optimized: bool = struct.field(pytree_node=False, default=False)


# From a model and square crops [B, H, W, 3] to what it predicts: `infer`, or the same followed by
# test-time optimisation (`predict.test_time.make_infer`). Pure, and ready to be jitted.
Infer = Callable[[Model, Array], Inference]


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedModel:
  """A checkpoint's model, and the run that it comes from."""

  model: Model
  config: Config
  step: int  # gradient steps taken
  round: int  # the EM round whose network it is


def build_topology_from(config: Config) -> Topology:
  """The mesh that a config asks for."""
  geometry = config.geometry
  return build_topology(
    geometry.level,
    texels_per_side=geometry.texels_per_side,
    symmetric_texture=geometry.symmetric_texture,
  )


def build_net(config: Config, *, hypotheses: int) -> UMRNet:
  """The network that a config asks for.

  Args:
    config: of the run.
    hypotheses: cameras per image.
  """
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
    encoder=model.encoder,
    mask_head=config.loss.segmentation > 0.0,
  )


def make_model(
  config: Config, network: Network, weights: TrainState | Snapshot, em_state: EMState
) -> Model:
  """The model that a run or its checkpoint holds.

  Args:
    config: of the run.
    network: of the round whose weights these are.
    weights: with parameters and statistics; unreplicated.
    em_state: its template and canonical map.
  """
  return Model(
    network=network,
    topology=build_topology_from(config),
    flow=config.model.flow,
    params=weights.params,
    batch_stats=weights.batch_stats,
    frozen=weights.frozen,
    template=em_state.template,
    canonical_uv=em_state.canonical_uv,
    part_vertices=em_state.part_vertices,
    view_template=em_state.view_template,
    canonical_features=em_state.canonical_features,
  )


def network_round(em_state: EMState, step: int) -> int:
  """The round whose network a state of this step holds.

  At the boundary between two rounds the M-step has been made, but the next round's network has not.

  Args:
    em_state: its rounds.
    step: gradient steps that the state has taken.
  """
  done = int(em_state.round)
  return done if done == 0 or step > int(em_state.round_start) else done - 1


def load_model(path: str | os.PathLike[str]) -> TrainedModel:
  """The model of the newest whole checkpoint.

  Args:
    path: a work directory, its `checkpoints` folder, or one step's folder in that.

  Raises:
    FileNotFoundError: if there is no checkpoint at `path`.
    CheckpointError: if there are, and every one is damaged.
    ValueError: for a config with settings that this version has no more.
  """
  return model_of(read_checkpoint(path))


def model_of(snapshot: Snapshot) -> TrainedModel:
  """The model that a checkpoint holds, with the network of its round."""
  config, em_state = from_saved(snapshot.config), snapshot.em_state
  index = network_round(em_state, snapshot.step)
  network = build_net(config, hypotheses=config.hypotheses(index))
  model = make_model(config, network, snapshot, em_state)
  return TrainedModel(model, config, step=int(snapshot.step), round=index)


@checked
def infer(model: Model, images: Float[Array, "B H W 3"]) -> Inference:
  """Reconstructs images in one pass through the network.

  BatchNorm uses its running statistics and the code is its mean, so that an image's result depends
  on no other image and on no key.

  Args:
    model: with any parameters.
    images: RGB in [0, 1], square crops.
  """
  compared = model.view_template is not None or model.canonical_features is not None
  maps = encoder_maps(model, images) if compared else None
  prediction = cast(
    Prediction, model.network.apply(model.variables, images, train=False, encoded=maps)
  )
  best = jnp.argmax(prediction.camera_logits, axis=-1)
  found = Inference(
    half_offsets=prediction.half_offsets,
    vertices=assemble_vertices(prediction.half_offsets, model.template, model.topology),
    cameras=prediction.cameras,
    camera_probs=jax.nn.softmax(prediction.camera_logits, axis=-1),
    camera=choose_rows(prediction.cameras, best),
    flow_map=prediction.flow_map,
    shape_code=prediction.shape_code,
    flow_correction=prediction.flow_map if model.flow == "projected" else None,
    mask=None if prediction.mask_logits is None else jax.nn.sigmoid(prediction.mask_logits),
    encoded=None if maps is None else maps[-1],
  )
  flow_map = texture_flow(found, model.topology, height=prediction.flow_map.shape[1])
  return dataclasses.replace(found, flow_map=flow_map)


def encoder_maps(model: Model, images: Float[Array, "B H W 3"]) -> tuple[Array, ...]:
  """The maps of a model's frozen encoder, the finest first.

  Args:
    model: that has one.
    images: RGB in [0, 1], square crops.
  """
  weights = {COLLECTION: model.frozen["encoder"]["frozen"]}
  return cast(tuple[Array, ...], FrozenEfficientNet().apply(weights, images))


@checked
def texture_flow(found: Inference, topology: Topology, *, height: int) -> Float[Array, "B hu wu 2"]:
  """The image positions of a texture of `height` rows, or of as many as the network's flow has.

  What a network predicts of the flow is smooth and is interpolated; the camera's projection is
  known at every pixel of the texture. The network's correction of that makes up for meshes that lie
  beside their image. One that was optimized at test time lies on it: the correction would move
  points that are in their place, and is left out; what is beside the silhouette all the same takes
  its nearest pixel.

  Args:
    found: of any images.
    topology: of the meshes.
    height: rows of the texture, at least.
  """
  if found.flow_correction is None:
    return upsample_flow(found.flow_map, height)
  height = max(height, found.flow_correction.shape[1])
  flow = camera_flow(found.vertices, found.camera, topology, uv_height=height)
  if found.optimized:
    return clamp_to_mask(flow, jnp.asarray(found.mask))
  return flow + upsample_flow(found.flow_correction, height)
