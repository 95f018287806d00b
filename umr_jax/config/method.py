"""The settings of the method: mesh, network, renderer, losses, optimizer and EM.

The defaults are the paper's (Li et al. 2020 and its supplementary). It states the terms and few
numbers; where it is silent they are those of the released configuration, and help texts name those
that are this project's. Settings that only extensions change from their defaults stand below those
of the paper, and their help texts begin with "Extension".
"""

import dataclasses
from typing import ClassVar

from umr_jax.config.fields import setting, weight


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeometryConfig:
  """The template mesh and its UV layout."""

  # The paper and its release.
  level: int = setting(
    3, "Icosphere subdivisions: 0..4 are 12, 42, 162, 642 and 2562 vertices.", low=0, high=4
  )
  texels_per_side: int = setting(6, "R: a face has R * R texels.", low=1, high=16)
  uv_height: int = setting(128, "The UV map is [uv_height, 2 * uv_height].", low=8, high=1024)
  symmetric_texture: bool = setting(True, "Left faces copy right faces' flow.")

  # Extensions: the default leaves the paper as it is.
  init: str = setting(
    "sphere",
    "Extension: the initial template. silhouettes: their mean, as a solid; visual_hull: what all "
    "silhouettes agree on, its cameras and voxels found in turns; view_search: likewise, with "
    "cameras that were found by dense features.",
    choices=("sphere", "silhouettes", "visual_hull", "view_search"),
  )
  hull_cost: float = setting(
    0.0,
    "Extension: cost of a visual hull's voxels outside of the silhouettes' solid: what no image "
    "constrains stays as there.",
    low=0.0,
    high=1e3,
  )
  init_width: float = setting(
    0.5, "Extension: y of a template from silhouettes, as a share of its x.", low=0.05, high=2.0
  )

  hull_turns: ClassVar[int] = 4  # how often a visual hull's cameras are found and its voxels fitted


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
  """The encoder and its heads (supplementary 2.2)."""

  # The paper and its release.
  encoder_width: int = setting(
    64, "Channels of the ResNet-18 stem; 64 is the published network.", low=8, high=512
  )
  encoder_weights: str = setting(
    "resnet18.pth",
    "none (resnet18: random; efficientnet: the package's), or a file: torchvision's or timm's "
    "ResNet-18, or EfficientNet-Lite0.",
  )
  camera_spread: bool = setting(
    True, "Hypotheses start around the object, as in CSM; False: together, as released."
  )

  # Extensions: the default leaves the paper as it is.
  encoder: str = setting(
    "resnet18",
    "Extension: efficientnet: ImageNet's features, frozen, of the extra `features` or a weight "
    "file.",
    choices=("resnet18", "efficientnet"),
  )
  norm: str = setting(
    "batch",
    "Extension: group: per image, for training from nothing in small batches.",
    choices=("batch", "group"),
  )
  texture_stem: str = setting(
    "dense",
    "Extension: dense: a matrix of 8192 x 8192; conv: convolutions in its place.",
    choices=("conv", "dense"),
  )
  flow: str = setting(
    "free",
    "Extension: free: the texture head's output is the flow; projected: it corrects where the "
    "camera, the responsible or the most probable one, projects each point of the surface.",
    choices=("free", "projected"),
  )
  sample_code: bool = setting(
    True, "Extension: z = mu + sigma * noise in training; z = mu where False."
  )
  camera_pose: str = setting(
    "free",
    "Extension: upright: elevation and roll within the bounds below.",
    choices=("free", "upright"),
  )
  camera_elevation: tuple[float, ...] = setting(
    (-20.0, 50.0),
    "Extension: of an upright pose's elevation, the lowest and the highest, in degrees.",
  )
  camera_roll: float = setting(
    20.0, "Extension: of an upright pose's roll, degrees to either side.", low=0.0, high=180.0
  )

  # The paper's sizes of the image feature and of the shape code.
  feature_size: ClassVar[int] = 200
  code_size: ClassVar[int] = 350


@dataclasses.dataclass(frozen=True, kw_only=True)
class RenderConfig:
  """The soft rasterizer's settings in training."""

  image_size: int = setting(0, "0: data.image_size; else a divisor of it.", low=0, high=1024)
  sigma: float = setting(1e-5, "Softness of outlines, in squared image units.", low=1e-7, high=0.1)
  dist_eps: float = setting(
    1e-10, "The least probability of a face at a pixel that counts.", low=1e-12, high=0.4
  )
  antialias: int = setting(2, "Samples per side of a pixel.", low=1, high=4)

  gamma: ClassVar[float] = 1e-4  # softness of depth, as SoftRas has it


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
  """Weights of the loss terms and what some of the terms need."""

  # The paper and its release.
  mask: float = weight(3.0, "Negative IoU of the silhouette.")
  texture: float = weight(3.0, "Distance of the textured render from the image.")
  texture_dt: float = weight(3.0, "Of flow that leaves the silhouette.")
  texture_cycle: float = weight(0.5, "Texture cycle consistency.")
  laplacian: float = weight(0.15, "Graph Laplacian.")
  flatten: float = weight(4e-4, "Angle between neighbouring faces, as the release has it.")
  edge: float = weight(
    10.0,
    "Edge regularisation, of the paper's objective. The weight is this project's, for the paper "
    "gives none and the release leaves the term out: at 10 it is as large as the sphere's "
    "Laplacian term where edge lengths deviate by a quarter.",
  )
  deformation: float = weight(5.0, "Norm of the offsets from the template.")
  deformation_start: int = setting(
    2000, "The step of the first round at which that term begins (released: six epochs).", low=0
  )
  orientation: float = weight(0.4, "Distance to the mirror plane, for the first 1000 steps.")
  part_probability: float = weight(5.0, "L_sp, from the first canonical map on; needs part maps.")
  part_vertices: float = weight(10.0, "L_sv, likewise; backpropagates to cameras.")
  adversary: float = weight(1.0, "Of the discriminator of unseen views; 0: there is none.")
  adversary_domain: str = setting(
    "color", "What it compares: silhouettes or colours.", choices=("mask", "color")
  )
  camera_entropy: float = setting(
    0.0, "Positive: towards one hypothesis (released: 0.05); negative: keeps several alive."
  )
  perceptual_weights: str = setting(
    "alexnet.pth", "A torchvision AlexNet file; none: colours and edges at several scales count."
  )

  # Extensions: the default leaves the paper as it is.
  segmentation: float = weight(
    0.0, "Extension: of a head that predicts silhouettes as pixels; 0: the network has none."
  )
  texture_cameras: str = setting(
    "all",
    "Extension: hypotheses that are textured. one: the sampled or responsible one.",
    choices=("one", "all"),
  )
  flow_correction: float = weight(
    0.0, "Extension: with model.flow=projected: of the head's departures from the projection."
  )
  smooth_offsets: bool = setting(
    False, "Extension: the Laplacian is that of the offsets: the template keeps its edges."
  )
  outline: float = weight(
    0.0, "Extension: of the distance from the silhouette's outline to the nearest vertices."
  )
  shape_variance: float = weight(
    0.0, "Extension: of the batch's shapes, while cameras settle: 300 steps."
  )
  target_camera: float = weight(
    0.0,
    "Extension: distance to the camera that pose search found for the training image, under which "
    "it is rendered.",
  )
  camera_temperature: float = weight(
    0.0,
    "Extension: hypotheses count by responsibility, softmax(log prior - loss / temperature); 0: by "
    "their probabilities, as in the paper.",
  )
  camera_posterior: float = weight(
    0.0, "Extension: cross-entropy of the probabilities to the responsibilities."
  )

  adversary_reversal: ClassVar[float] = 0.2  # of its gradient, reversed, as released
  shape_variance_stop: ClassVar[int] = 300  # the step of the first round at which the term ends
  orientation_stop: ClassVar[int] = 1000  # likewise; released: three epochs


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefineConfig:
  """Test-time optimisation: predictions are fitted to the silhouettes that the network predicts."""

  steps: int = setting(0, "Per image; 0: the network's prediction stays.", low=0, high=10**5)

  # At first; object units, image units, or half radians a step.
  learning_rate: ClassVar[float] = 0.01
  # Of the outline's distance from the vertices, beside loss.mask.
  outline: ClassVar[float] = 20.0
  # Of the distance of what the image shows at the vertices from the canonical features.
  features: ClassVar[float] = 1.0
  # Of the Laplacian of the departures from the network's shape, beside loss.mask: outlines bend a
  # mesh in the large, not vertex by vertex, or what lies on it no longer means the same place.
  laplacian: ClassVar[float] = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
  """The optimizer and the length of the run."""

  steps: int = setting(
    60_000,
    "Of the whole run, over all rounds. This project's: the paper states two days on four GPUs.",
    low=1,
    high=10**9,
  )
  batch_size: int = setting(
    16, "Over all devices and hosts (released: 64, then 16).", low=1, high=10**6
  )
  learning_rate: float = setting(1e-4, "Adam's, at first.", low=1e-9, high=1.0)
  schedule: str = setting(
    "inverse",
    "inverse: the released rate / (1 + 5e-4 i), which has halved after 2000 steps; halving: a "
    "factor 0.5 every 2000 steps, the paper's words taken as geometric decay, which leaves nothing "
    "to learn after about 14,000 steps of a round.",
    choices=("inverse", "halving", "cosine", "constant"),
  )
  warmup_steps: int = setting(0, "Linear, from nothing.", low=0, high=10**9)
  clip_norm: float = setting(0.0, "Of the whole gradient; 0: no clipping.", low=0.0, high=1e9)
  seed: int = setting(0, "Of all that is random in training.", low=0, high=2**31 - 1)

  halving_steps: ClassVar[int] = 2000


@dataclasses.dataclass(frozen=True, kw_only=True)
class EMConfig:
  """The rounds, equally long: each an E-step, and then an M-step."""

  # The paper and its release.
  rounds: int = setting(2, "How many.", low=1, high=100)
  hypotheses: tuple[int, ...] = setting((1, 8), "Cameras per round; the last value repeats.")
  template_every: int = setting(
    0,
    "Steps between further updates of the template inside a round; 0: none. Where each round has a "
    "new network (em.restart), only in the first round, as released: a new network keeps its "
    "template.",
    low=0,
    high=10**9,
  )
  top_fraction: float = setting(
    0.3125, "|Q| and |U| as a share of the training set (released: 5/16).", low=0.0, high=1.0
  )
  later: tuple[str, ...] = setting(
    (
      "loss.mask=2.5",
      "loss.flatten=5e-4",
      "loss.deformation=1.0",
      "loss.texture_cycle=1.0",
    ),
    "Weights of losses that differ from the second round on.",
  )

  # Extensions: the default leaves the paper as it is.
  restart: bool = setting(
    True, "Extension: False: a round continues with the network of the one before, not a new one."
  )
  parts_every: int = setting(
    0,
    "Extension: as em.template_every, of the canonical part map, in every round.",
    low=0,
    high=10**9,
  )
  uv_projection: str = setting(
    "flow",
    "Extension: what maps part maps to UV space: the texture flow, as in the paper, or the camera.",
    choices=("flow", "camera"),
  )

  # How much views that suit every image are held back in pose search. 0: not; 1: for images from
  # all around.
  view_evenness: ClassVar[float] = 0.5
