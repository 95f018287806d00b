"""What the objective is made with, and what never changes during training."""

import dataclasses

from umr_jax.config.settings import Config, LossConfig
from umr_jax.losses.texture import TextureDistance, texture_distance, texture_distance_from
from umr_jax.render import RenderSettings
from umr_jax.types import Topology


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectiveSpec:
  """The constants of `objective.total_loss`."""

  topology: Topology
  weights: LossConfig  # of every term, and what some of the terms need
  render: RenderSettings  # its square image's size divides the batch's
  distance: TextureDistance = texture_distance  # of a textured render from the image
  flow: str = "free"  # or "projected": the network's flow is added to the projected one

  @property
  def image_size(self) -> int:
    """Pixels per side of the renders."""
    return self.render.height_and_width[0]

  @classmethod
  def from_config(cls, config: Config, topology: Topology) -> "ObjectiveSpec":
    """The objective that a config asks for.

    Args:
      config: of the run, at the round that is trained.
      topology: the mesh.

    Raises:
      FileNotFoundError: if a file of pretrained weights is named and not there.
    """
    render = config.render
    return cls(
      topology=topology,
      weights=config.loss,
      render=RenderSettings(
        image_size=config.render_size,
        sigma=render.sigma,
        gamma=render.gamma,
        dist_eps=render.dist_eps,
        antialias=render.antialias,
      ),
      distance=texture_distance_from(config.loss.perceptual_weights),
      flow=config.model.flow,
    )
