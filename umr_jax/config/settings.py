"""Every setting of a run, as frozen dataclasses, and the validation that refuses wrong ones.

Numeric functions take values; what builds them from a config, such as `em.round.make_round`, reads
it for them. `from_dict` turns the nested dict of a config file, a checkpoint or command line flags
back into a config, and refuses what it does not know.
"""

import dataclasses
import difflib
import math
import typing
from collections.abc import Mapping
from typing import Any

from umr_jax.config import checks as config_checks


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeometryConfig:
  """The template mesh and its UV layout."""

  # The first template: sphere (the paper's) | silhouettes (their mean, as a solid) | visual_hull
  # (what all silhouettes agree on, its cameras and voxels found in turns)
  init: str = "sphere"
  hull_turns: int = 4  # how often a visual hull's cameras are found and its voxels fitted to them
  # Cost of its voxels outside the silhouettes' solid: what no image constrains stays as there.
  hull_cost: float = 0.0
  # With silhouettes or a hull: the first canonical map comes from the parts' mean profile.
  init_parts: bool = False
  # y of a template from silhouettes, or of a visual hull's start, as a share of its x
  init_width: float = 0.5
  level: int = 3  # icosphere subdivisions: 0..4 are 12, 42, 162, 642, 2562 vertices
  texels_per_side: int = 6  # R: a face has R * R texels
  uv_height: int = 128  # the UV map is [uv_height, 2 * uv_height]
  symmetric_texture: bool = True  # left faces copy right faces' flow


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
  """Which images, and the square crop that the network sees."""

  source: str = "synthetic"  # synthetic | folder | cub | pascal3d | imagenet | openimages | tfds
  folder: str = ""  # where the source's files are; a leading $UMR_JAX_DATA is expanded
  # given: the data set's own part maps, or discovered where it has none | discovered | file |
  # keypoints: made of the training keypoints | none
  parts: str = "given"
  part_file: str = ""  # with parts=file: part maps that a command of this package wrote
  part_count: int = 0  # P that given part maps must have, and of discovered ones; 0: any, and 4
  download: bool = False  # cub, pascal3d, openimages: unpack, or fetch, what the folder lacks
  category: str = ""  # car, horse, Penguin, ...: for pascal3d, imagenet, openimages and tfds
  tfds_name: str = ""  # tfds only: the prepared set, such as caltech_birds2011
  cub_annotations: str = ""  # cub only: CMR's cachedir/cub, for its cleaned lists and cameras
  # cub only: pictures with fewer visible keypoints are left out, in training and in testing.
  cub_keypoints: tuple[int, ...] = (0, 0)
  cache: str = "~/.cache/umr_jax"  # prepared data sets, keyed by a fingerprint
  image_size: int = 96
  padding: float = 0.05  # of the mask's box, on every side
  jitter: float = 0.05  # of the box, uniformly on every side, in training only
  color_jitter: float = 0.0  # strength of colour changes of what the network sees, in training only
  background: float = 0.0  # share of training images seen in front of another's background
  rotation: float = 0.0  # degrees to either side, in training only
  stretch: float = 0.0  # longer and lower, or taller and shorter, by exp(u); in training only
  mirror: bool = True  # flip training images left to right with probability 1/2
  test_fraction: float = 0.2  # for data without a split of their own
  split_seed: int = 0
  train_images: int = 1200  # synthetic only
  test_images: int = 120  # synthetic only
  synthetic_seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartsConfig:
  """How parts are discovered where the data have none (supplementary 1; Hung et al. 2019)."""

  # cosegment: factors of frozen features | scops: the losses of Hung et al. | position: places in
  # the mask's box, a reference.
  method: str = "cosegment"
  # auto: efficientnet where its package is installed, else encoder |
  # efficientnet | vgg16 | vgg19 | dino | encoder: trained on the folder itself
  features: str = "auto"
  feature_file: str = ""  # the weight file of vgg16, vgg19 and dino
  feature_size: int = 448  # pixels per side of what the features see
  encoder_steps: int = 500  # of the training of the features that are learned on the folder
  image_size: int = 128  # pixels per side of the crops that are cut into parts
  # small | resnet50 (the published network) | efficientnet (a decoder of its frozen features)
  net: str = "small"
  net_width: int = 32  # channels of the net's stem; 64 is the published ResNet-50
  # none (efficientnet: the package's), or a file: torchvision's ResNet-50, or EfficientNet-Lite0
  net_weights: str = "none"
  # Of the network that learns the factors' maps, or by the losses of SCOPS; 0: no network, but the
  # factors' own maps, which were better here.
  steps: int = 0
  batch_size: int = 16
  learning_rate: float = 3e-3
  seed: int = 0
  confident: float = 0.5  # the share of reconstructions that give pseudo labels
  # Weights of the losses; the published ones are 10, 1000, 100, 10000 and 0.1. Preset `scops` has
  # those that were tried here.
  supervision: float = 1.0  # of cross-entropy to the factors' maps
  concentration: float = 0.0
  equivariance: float = 1.0
  landmark: float = 0.0
  semantic: float = 0.0
  orthonormality: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
  """The encoder and its heads (supplementary 2.2)."""

  # resnet18 | efficientnet: ImageNet's features, frozen, of the extra `features` or a weight file
  encoder: str = "resnet18"
  encoder_width: int = 64  # channels of the ResNet-18 stem; 64 is the published network
  # none (resnet18: random; efficientnet: the package's), or a file: torchvision's or timm's
  # ResNet-18, or EfficientNet-Lite0
  encoder_weights: str = "none"
  norm: str = "batch"  # batch | group: per image, for training from nothing in small batches
  feature_size: int = 200
  code_size: int = 350
  texture_stem: str = "conv"  # conv | dense (the paper's 8192 x 8192 matrix)
  # free: the texture head's flow is the flow | camera: it is what corrects where the camera, the
  # responsible or the most probable one, sees each point of the surface
  flow: str = "free"
  sample_code: bool = True  # z = mu + sigma * noise in training; z = mu where False
  camera_pose: str = "free"  # free | upright: elevation and roll within the bounds below
  camera_elevation: tuple[float, ...] = (-20.0, 50.0)  # degrees
  camera_roll: float = 20.0  # degrees to either side
  camera_spread: bool = True  # whether hypotheses start around the object rather than together


@dataclasses.dataclass(frozen=True, kw_only=True)
class RenderConfig:
  """The soft rasterizer's settings in training."""

  image_size: int = 0  # 0: data.image_size; else a divisor of it
  sigma: float = 1e-4
  gamma: float = 1e-4
  dist_eps: float = 1e-4
  antialias: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
  """Weights of the loss terms and what some of the terms need."""

  mask: float = 3.0
  # Of a head that predicts silhouettes as pixels, and teaches the encoder where that is not frozen;
  # 0: the network has none.
  segmentation: float = 0.0
  texture: float = 3.0
  texture_cameras: str = "one"  # one: the drawn or responsible hypothesis | all of them
  texture_dt: float = 3.0
  texture_cycle: float = 0.5
  flow_correction: float = 0.0  # with model.flow=projected: keeps the head's departures small
  laplacian: float = 0.15
  smooth_offsets: bool = False  # the Laplacian is that of the offsets: the template keeps its edges
  flatten: float = 4e-4
  edge: float = 0.0
  deformation: float = 5.0
  deformation_start: int = 0  # the step of the first round at which the term begins
  shape_variance: float = 0.0  # keeps all shapes equal while cameras settle
  shape_variance_stop: int = 0  # the step of the first round at which the term ends
  orientation: float = 0.4
  orientation_stop: int = 300  # the step of the first round at which the term ends
  # Semantic consistency, from the first canonical map on; needs data with part maps.
  part_probability: float = 0.0  # of the rendered canonical map; teaches shapes
  part_cameras: bool = False  # the probability term teaches cameras, too
  part_vertices: float = 0.0  # of the template's parts; teaches cameras
  # Of the judge of unseen views, which sees silhouettes or colours; 0: there is none.
  adversary: float = 0.0
  adversary_reversal: float = 0.2  # how much of its gradient, reversed, reaches the shape
  adversary_domain: str = "mask"  # mask | color
  # Distance to the camera that pose search found for the training image.
  target_camera: float = 0.0
  camera_entropy: float = 0.0  # positive: towards one hypothesis; negative: keeps several alive
  # Hypotheses count by responsibility, softmax(-loss / temperature), and their probabilities learn
  # to be the responsibilities; 0: they count by their probabilities, as in the paper.
  camera_temperature: float = 0.0
  camera_prior: float = 0.0  # the power to which the probabilities count in responsibilities
  camera_posterior: float = 0.0  # weight of what teaches the probabilities
  perceptual_weights: str = "none"  # none, or a torchvision AlexNet file


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefineConfig:
  """How predictions are fitted to the silhouettes that the network sees, after training."""

  steps: int = 0  # of each picture's shape and camera; 0: what the network says stays
  learning_rate: float = 5e-3  # at first; object units, image units, or half radians a step
  # Of the offsets' Laplacian, beside loss.mask: outlines bend a mesh in the large, not vertex by
  # vertex, or what lies on it no longer means the same place.
  laplacian: float = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
  """The optimizer and the length of the run."""

  steps: int = 1000  # of the whole run, over all rounds
  batch_size: int = 16  # over all devices and hosts
  learning_rate: float = 1e-4
  schedule: str = "halving"  # halving | inverse | cosine | constant
  halving_steps: int = 2000  # for `halving`: the rate halves every so many steps
  warmup_steps: int = 0
  clip_norm: float = 0.0  # 0: no gradient clipping
  seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class EMConfig:
  """The rounds."""

  rounds: int = 2
  hypotheses: tuple[int, ...] = (1, 8)  # cameras per round; the last value repeats
  round_fractions: tuple[float, ...] = (0.5, 0.5)  # of train.steps; must sum to 1
  template_every: int = 0  # steps between template updates inside a round; 0: at its end only
  parts_every: int = 0  # the same for the canonical part map
  uv_projection: str = "flow"  # what finds a point's part on an image: flow (the paper's) | camera
  # How much views that suit every image are held back: 0: not; 1: for photographs from all around
  view_evenness: float = 0.5
  top_fraction: float = 0.3125  # |Q| and |U| as a share of the training set (5/16)
  restart: bool = True  # a round starts from a new network; False: it continues
  # Before a new network, with model.camera_pose=free: the template is turned so that the mean up of
  # the last round's cameras is the axis about which hypotheses are spread.
  align_to_vertical: bool = True
  # What is different from the second round on, such as ("loss.mask=2.5",); weights of losses only.
  later: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
  """How often a run saves itself."""

  every: int = 250  # steps between checkpoints; also after every round
  keep: int = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogConfig:
  """What a person sees while the run goes on."""

  every: int = 20  # steps between metric lines
  panel_every: int = 250  # steps between panel pictures
  tensorboard: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """One run. Nested by the folder that a setting belongs to."""

  geometry: GeometryConfig = GeometryConfig()
  data: DataConfig = DataConfig()
  parts: PartsConfig = PartsConfig()
  model: ModelConfig = ModelConfig()
  render: RenderConfig = RenderConfig()
  loss: LossConfig = LossConfig()
  refine: RefineConfig = RefineConfig()
  train: TrainConfig = TrainConfig()
  em: EMConfig = EMConfig()
  checkpoint: CheckpointConfig = CheckpointConfig()
  log: LogConfig = LogConfig()

  def __post_init__(self) -> None:
    problems = list(config_checks.problems(self, flatten(to_dict(self))))
    if problems:
      raise ValueError("The configuration is not usable:\n  " + "\n  ".join(problems))

  @property
  def render_size(self) -> int:
    """Pixels per side of the training renders."""
    return self.render.image_size or self.data.image_size

  def round_bounds(self) -> tuple[tuple[int, int], ...]:
    """The (first, past the last) step of every round."""
    shares = self.em.round_fractions
    stops = [round(self.train.steps * sum(shares[: r + 1])) for r in range(self.em.rounds)]
    stops[-1] = self.train.steps
    return tuple(zip([0, *stops[:-1]], stops, strict=True))

  def at_round(self, index: int) -> "Config":
    """The configuration with the weights that a round has."""
    later: dict[str, Any] = config_checks.later_weights(self.em.later) if index else {}
    return dataclasses.replace(self, loss=dataclasses.replace(self.loss, **later))

  @property
  def semantic(self) -> bool:
    """Whether a loss reads part maps."""
    return max(self.loss.part_probability, self.loss.part_vertices) > 0.0

  def hypotheses(self, round_index: int) -> int:
    """Cameras that the network of a round predicts; K."""
    return self.em.hypotheses[min(round_index, len(self.em.hypotheses) - 1)]


def to_dict(config: Any) -> dict[str, Any]:
  """The configuration as nested plain dicts."""
  return dataclasses.asdict(config)


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """{"a": {"b": 1}} to {"a.b": 1}."""
  flat: dict[str, Any] = {}
  for name, value in nested.items():
    if isinstance(value, Mapping):
      flat.update(flatten(value, f"{prefix}{name}."))
    else:
      flat[prefix + name] = value
  return flat


# Settings that earlier versions had, and checkpoints may hold: the value that means what the code
# does now. An entry applies only where no dataclass has the name.
_REMOVED: dict[str, Any] = {
  "geometry.first_cameras": "views",
  "geometry.radii": (1.0, 1.0, 1.0),
  "geometry.taper": 0.0,
  "parts.rotation": 30.0,
  "parts.zoom": (0.8, 1.3),
  "model.camera_twins": False,
  "model.camera_mirrored": False,
  "loss.camera_appearance": False,
  "loss.camera_diversity": 0.0,
  "loss.part_symmetric": False,
  "train.ema_decay": 0.0,
  "em.template": True,
  "em.bank_every": 0,
  "em.bank_shapes": 0,
  "em.levels": (),
  "em.render_sizes": (),
}

# Settings and choices that had another name in earlier versions: from the old name to the new.
_RENAMED = {
  "geometry.first": "geometry.init",
  "geometry.first_parts": "geometry.init_parts",
  "geometry.width": "geometry.init_width",
  "geometry.volume_turns": "geometry.hull_turns",
  "geometry.volume_cost": "geometry.hull_cost",
  "parts.reliable": "parts.confident",
  "loss.camera_bank": "loss.target_camera",
  "loss.deviation": "loss.shape_variance",
  "loss.deviation_stop": "loss.shape_variance_stop",
  "em.bank_evenness": "em.view_evenness",
  "em.pull_back": "em.uv_projection",
  "em.mean_up": "em.align_to_vertical",
}
_RENAMED_CHOICES = {
  "geometry.init": {"egg": "sphere", "volume": "visual_hull"},
  "model.flow": {"camera": "projected"},
}


def with_new_names(nested: Mapping[str, Any]) -> dict[str, Any]:
  """Nested settings of an earlier version under the names and choices that they have now."""
  # A group without settings stays one.
  new: dict[str, Any] = {name: {} for name, group in nested.items() if isinstance(group, Mapping)}
  for name, value in flatten(nested).items():
    name = _RENAMED.get(name, name)
    choices = _RENAMED_CHOICES.get(name, {})
    *groups, last = name.split(".")
    node = new
    for group in groups:
      node = node.setdefault(group, {})
    node[last] = choices.get(value, value) if isinstance(value, str) else value
  return new


def from_dict(nested: Mapping[str, Any]) -> Config:
  """A validated configuration from nested dicts; what is absent takes its default.

  A setting that was removed may have the value that means what the code does now.

  Raises:
    ValueError: for an unknown name, a value of the wrong type, a removed setting with another
      value, or a combination that cannot run.
  """
  return _build(Config, with_new_names(nested), "")


def _build(cls: type, nested: Mapping[str, Any], prefix: str) -> Any:
  fields = typing.get_type_hints(cls)
  arguments = {}
  for name, value in nested.items():
    if name not in fields and prefix + name in _REMOVED:
      kept = _REMOVED[prefix + name]
      if _plain(value) != _plain(kept):
        raise ValueError(
          f"{prefix}{name} is {value!r}, but this setting was removed: the code does what "
          f"{kept!r} meant. Use an earlier version of the package for anything else."
        )
      continue
    if name not in fields:
      close = difflib.get_close_matches(name, fields, n=1)
      hint = f" Did you mean {prefix}{close[0]}?" if close else f" Known: {', '.join(fields)}."
      raise ValueError(f"The configuration has no setting {prefix}{name}.{hint}")
    kind = fields[name]
    if dataclasses.is_dataclass(kind):
      if not isinstance(value, Mapping):
        raise ValueError(f"{prefix}{name} is {value!r}; it must be a group of settings.")
      arguments[name] = _build(typing.cast(type, kind), value, f"{prefix}{name}.")
    else:
      arguments[name] = _convert(value, kind, prefix + name)
  return cls(**arguments)


def _convert(value: Any, kind: Any, name: str) -> Any:
  """The value as its declared type; only int to float and list to tuple are silent."""
  if typing.get_origin(kind) is tuple:
    if not isinstance(value, (list, tuple)):
      raise ValueError(f"{name} is {value!r}; it must be a list.")
    return tuple(_convert(item, typing.get_args(kind)[0], name) for item in value)
  if kind is float and isinstance(value, int) and not isinstance(value, bool):
    value = float(value)
  if type(value) is not kind or (kind is float and not math.isfinite(value)):
    raise ValueError(f"{name} is {value!r}; it must be a finite {kind.__name__}.")
  return value


# A run may go on although these differ from the configuration it began with.
_MAY_DIFFER = ("log.", "checkpoint.", "data.cache")


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
  """The settings that matter to a run's result and differ, by name: was, now; both nested.

  A setting that `old` does not have yet came into the package later, and counts as its default. One
  that was removed counts as the value that means what the code does now where it is absent.
  """
  known = flatten(to_dict(Config()))
  removed = {name: value for name, value in _REMOVED.items() if name not in known}
  before, after = (
    known | removed | flatten(with_new_names(old)),
    removed | flatten(with_new_names(new)),
  )
  pairs = {
    name: tuple(_plain(flat.get(name, "absent")) for flat in (before, after))
    for name in sorted(before | after)
    if not name.startswith(_MAY_DIFFER)
  }
  return {name: (was, now) for name, (was, now) in pairs.items() if was != now}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """What keeps a run begun under `old` from going on under `new`, a line each; both nested."""
  return [
    f"{name}: {was!r} in the work directory, {now!r} now"
    for name, (was, now) in changes(old, new).items()
    if not (name == "train.steps" and isinstance(was, int) and now > was)
  ]


def _plain(value: Any) -> Any:
  return list(value) if isinstance(value, tuple) else value
