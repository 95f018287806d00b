"""The whole network: one image in, shape, cameras and texture flow out."""

import math

import flax.linen as nn
from jaxtyping import Array, Float

from umr_jax.models.camera_heads import CameraHeads
from umr_jax.models.encoder import Encoder
from umr_jax.models.heads import MaskDecoder, MaskHead, ShapeHead, TextureHead
from umr_jax.types import Prediction, checked

SMALLEST_IMAGE = 64
LARGEST_IMAGE = 256


class UMRNet(nn.Module):
  """The reconstruction network of one EM round.

  Source: Li et al. 2020, section 3.1 and supplementary 2.2.
  """

  num_half: int  # learned vertices
  hypotheses: int  # cameras per image
  uv_height: int
  encoder_width: int
  feature_size: int
  code_size: int
  texture_stem: str  # conv | dense
  sample_code: bool
  camera_pose: str  # free | upright
  camera_elevation: tuple[float, ...]  # degrees
  camera_roll: float  # degrees
  camera_spread: bool  # whether they are initialized around the object, not together
  norm: str  # batch | group
  encoder: str  # resnet18 | efficientnet: frozen
  mask_head: bool  # whether silhouettes are predicted as pixels, too

  @nn.compact
  @checked
  def __call__(
    self,
    images: Float[Array, "B H W 3"],
    *,
    train: bool,
    noise: Float[Array, "B Z"] | None = None,
    encoded: tuple[Float[Array, "B _ _ _"], ...] | None = None,
  ) -> Prediction:
    """Predicts.

    Args:
      images: RGB in [0, 1], square, 64 to 256 pixels.
      train: whether BatchNorm uses, and remembers, the batch's statistics.
      noise: standard normal: the shape's code is sampled with it. None for the mean code.
      encoded: the maps of the images that a frozen encoder has made before, or None.

    Returns:
      The prediction, before the template is added.

    Raises:
      ValueError: for images that are not square or of another size.
    """
    check_image_size(*images.shape[1:3])
    encoding = Encoder(
      self.encoder_width,
      self.feature_size,
      self.code_size,
      self.sample_code,
      norm=self.norm,
      backbone=self.encoder,
      name="encoder",
    )(images, train=train, noise=noise, encoded=encoded)
    cameras, logits = CameraHeads(
      self.hypotheses,
      spread=self.camera_spread,
      pose=self.camera_pose,
      elevation=self.camera_elevation,
      roll=self.camera_roll,
      trunk_deviation=self._trunk_deviation(),
      name="camera_heads",
    )(encoding.feature, train=train)
    texture_head = TextureHead(
      self.uv_height, self.texture_stem, norm=self.norm, name="texture_head"
    )
    return Prediction(
      half_offsets=ShapeHead(self.num_half, name="shape_head")(encoding.code),
      shape_code=encoding.mu,
      flow_map=texture_head(encoding.feature, train=train),
      cameras=cameras,
      camera_logits=logits,
      mask_logits=self._mask_logits(encoding.maps, train=train) if self.mask_head else None,
    )

  def _trunk_deviation(self) -> float:
    """Of the initial weights of the camera heads' trunk.

    The published initialization shrinks the differences between images fourfold in each layer,
    which costs a network trained from nothing its cameras; He's keeps their scale.
    """
    return 0.02 if self.norm == "batch" else math.sqrt(2.0 / self.feature_size)

  def _mask_logits(self, maps: tuple[Array, ...], *, train: bool) -> Float[Array, "B h w"]:
    if self.encoder == "efficientnet":
      return MaskDecoder(norm=self.norm, name="mask_head")(maps, train=train)
    return MaskHead(name="mask_head")(maps[-1])


def check_image_size(height: int, width: int) -> None:
  """Refuses images that the network cannot read.

  Args:
    height: in pixels.
    width: in pixels.

  Raises:
    ValueError: for images that are not square, or smaller than 64 or larger than 256 pixels.
  """
  if height != width or not SMALLEST_IMAGE <= height <= LARGEST_IMAGE:
    raise ValueError(
      f"found images of {height} x {width} pixels; the network reads square images of "
      f"{SMALLEST_IMAGE} to {LARGEST_IMAGE} pixels. Crop and resize them first"
    )
