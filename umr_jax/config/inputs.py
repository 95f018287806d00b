"""The settings of what a run learns from: the images, and the parts of the images."""

import dataclasses
from typing import ClassVar, NamedTuple

from umr_jax.config.fields import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
  """Which images, and the square crops that the network takes.

  Its defaults are practical rather than the paper's: without a flag, data that need no download.
  """

  source: str = setting(
    "synthetic",
    "The kind of data set.",
    choices=("synthetic", "folder", "cub", "pascal3d", "imagenet", "openimages", "tfds"),
  )
  folder: str = setting("", "Where the source's files are; a leading $UMR_JAX_DATA is expanded.")
  parts: str = setting(
    "given",
    "Where part maps come from. given: the data set, or discovery where it has none; file: a "
    "command of this package; keypoints: made of the training keypoints.",
    choices=("given", "discovered", "file", "keypoints", "none"),
  )
  part_file: str = setting("", "With parts=file: the part maps, such as RUN/parts/parts.npz.")
  part_count: int = setting(
    0, "P that given maps must have, and of discovered ones; 0: any, and 4.", low=0, high=64
  )
  download: bool = setting(
    False, "cub, pascal3d, openimages: unpack, or fetch, what the folder lacks."
  )
  category: str = setting("", "car, horse, Penguin, ...: pascal3d, imagenet, openimages and tfds.")
  tfds_name: str = setting("", "tfds: the prepared set, such as caltech_birds2011.")
  cub_annotations: str = setting("", "cub: CMR's cachedir/cub, for its cleaned lists and cameras.")
  cache: str = setting("~/.cache/umr_jax", "Prepared data sets, keyed by a fingerprint.")
  image_size: int = setting(256, "Pixels per side of the crops.", low=64, high=256)
  jitter: float = setting(
    0.05, "Share of the box by which each of its sides moves, in training.", low=0.0, high=0.5
  )
  color_jitter: float = setting(
    0.0, "Strength of colour changes of the network's input, in training.", low=0.0, high=2.0
  )
  background: float = setting(
    0.0, "Share of training images put in front of another's background.", low=0.0, high=1.0
  )
  rotation: float = setting(0.0, "Degrees to either side, in training.", low=0.0, high=90.0)
  stretch: float = setting(
    0.0, "Longer and lower, or taller and shorter, by exp(u), in training.", low=0.0, high=1.0
  )
  train_images: int = setting(1200, "synthetic: how many.", low=1, high=10**7)
  test_images: int = setting(120, "synthetic: how many.", low=1, high=10**7)

  # Constants. The padding is CMR's and the paper's: of the box, on every side.
  padding: ClassVar[float] = 0.05
  mirror: ClassVar[bool] = True  # half of the training images are flipped left to right
  test_fraction: ClassVar[float] = 0.2  # of data without a split of their own
  split_seed: ClassVar[int] = 0
  synthetic_seed: ClassVar[int] = 0
  # CMR's lists: visible keypoints that a bird of CUB needs, in training and in testing.
  cub_keypoints: ClassVar[tuple[int, int]] = (6, 7)


class PartWeights(NamedTuple):
  """Of the terms beside the silhouette's, which is 1; those that are zero are not computed."""

  supervision: float = 0.0
  concentration: float = 0.0
  equivariance: float = 0.0
  landmark: float = 0.0
  semantic: float = 0.0
  orthonormality: float = 0.0


# SCOPS publishes 10, 1000, 100, 10000 and 0.1, for sums that are means here; these were tried.
_SCOPS = PartWeights(
  concentration=0.1, equivariance=10.0, landmark=1.0, semantic=30.0, orthonormality=0.01
)
_COSEGMENT = PartWeights(supervision=1.0, equivariance=1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartsConfig:
  """How parts are discovered where the data have none (supplementary 1; Hung et al. 2019)."""

  method: str = setting(
    "cosegment",
    "cosegment: non-negative factors of frozen features; scops: the losses of Hung et al.; "
    "position: places in the mask's box, a reference.",
    choices=("cosegment", "scops", "position"),
  )
  features: str = setting(
    "auto",
    "What images are compared by. auto: efficientnet where its package is installed, else "
    "encoder, which is trained on the images themselves.",
    choices=("auto", "efficientnet", "vgg16", "vgg19", "dino", "encoder"),
  )
  feature_file: str = setting("", "The weight file of vgg16, vgg19 and dino.")
  net: str = setting(
    "small",
    "resnet50: the published network; efficientnet: a decoder of its frozen features.",
    choices=("small", "resnet50", "efficientnet"),
  )
  net_weights: str = setting(
    "none",
    "none (efficientnet: the package's), or a file: torchvision's ResNet-50, EfficientNet-Lite0.",
  )
  steps: int = setting(
    0,
    "Of the network. 0, with cosegment: the factors' own maps, which were better here.",
    low=0,
    high=10**7,
  )

  # Constants.
  image_size: ClassVar[int] = 128  # pixels per side of the crops that are segmented into parts
  feature_size: ClassVar[int] = 448  # pixels per side of the input of the frozen features
  encoder_steps: ClassVar[int] = 500  # of the training of the features `encoder`
  net_width: ClassVar[int] = 32  # channels of the network's stem; 64 is the published ResNet-50
  batch_size: ClassVar[int] = 16
  learning_rate: ClassVar[float] = 3e-3
  seed: ClassVar[int] = 0
  confident: ClassVar[float] = 0.5  # the share of reconstructions that give pseudo labels

  @property
  def weights(self) -> PartWeights:
    """The weights of the network's losses."""
    return _SCOPS if self.method == "scops" else _COSEGMENT
