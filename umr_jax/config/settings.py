"""Every setting of a run: frozen dataclasses, nested by the folder that a setting belongs to.

`Config()` is the paper. What this project added is off in it, and named in `config.extensions`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, cast

from umr_jax.config import checks
from umr_jax.config.fields import NewSettings, Settings, setting
from umr_jax.config.inputs import DataConfig, PartsConfig, PartWeights
from umr_jax.config.method import (
  EMConfig,
  GeometryConfig,
  LossConfig,
  ModelConfig,
  RefineConfig,
  RenderConfig,
  TrainConfig,
)

__all__ = [
  "CheckpointConfig",
  "Config",
  "DataConfig",
  "EMConfig",
  "GeometryConfig",
  "LogConfig",
  "LossConfig",
  "ModelConfig",
  "PartWeights",
  "PartsConfig",
  "RefineConfig",
  "RenderConfig",
  "TrainConfig",
  "flatten",
  "to_dict",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
  """How often a run saves itself."""

  every: int = setting(
    1000, "Steps between checkpoints; also after every round.", low=1, high=10**9
  )

  keep: ClassVar[int] = 2  # the newest ones


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogConfig:
  """What a person is shown while the run goes on."""

  every: int = setting(20, "Steps between metric lines.", low=1, high=10**9)
  panel_every: int = setting(1000, "Steps between panels of images.", low=1, high=10**9)

  tensorboard: ClassVar[bool] = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """One run."""

  geometry: GeometryConfig = dataclasses.field(default_factory=GeometryConfig)
  data: DataConfig = dataclasses.field(default_factory=DataConfig)
  parts: PartsConfig = dataclasses.field(default_factory=PartsConfig)
  model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
  render: RenderConfig = dataclasses.field(default_factory=RenderConfig)
  loss: LossConfig = dataclasses.field(default_factory=LossConfig)
  refine: RefineConfig = dataclasses.field(default_factory=RefineConfig)
  train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
  em: EMConfig = dataclasses.field(default_factory=EMConfig)
  checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
  log: LogConfig = dataclasses.field(default_factory=LogConfig)

  def __post_init__(self) -> None:
    problems = list(checks.problems(self))
    if problems:
      raise ValueError("The configuration is not usable:\n  " + "\n  ".join(problems))

  @property
  def render_size(self) -> int:
    """Pixels per side of the training renders."""
    return self.render.image_size or self.data.image_size

  @property
  def semantic(self) -> bool:
    """Whether a loss reads part maps."""
    return max(self.loss.part_probability, self.loss.part_vertices) > 0.0

  @property
  def init_parts(self) -> bool:
    """Whether the initial canonical map is made of the training images' part maps."""
    return self.semantic and self.geometry.init != "sphere"

  def round_bounds(self) -> tuple[tuple[int, int], ...]:
    """The (first, past the last) step of every round."""
    rounds = self.em.rounds
    stops = [round(self.train.steps * (index + 1) / rounds) for index in range(rounds)]
    return tuple(zip([0, *stops[:-1]], stops, strict=True))

  def at_round(self, index: int) -> "Config":
    """The configuration with the weights that a round has."""
    later: dict[str, Any] = checks.later_weights(self.em.later) if index else {}
    return dataclasses.replace(self, loss=dataclasses.replace(self.loss, **later))

  def hypotheses(self, round_index: int) -> int:
    """Cameras that the network of a round predicts; K."""
    return self.em.hypotheses[min(round_index, len(self.em.hypotheses) - 1)]


def to_dict(config: object) -> NewSettings:
  """The configuration, or a group of it, as nested plain dicts."""
  return dataclasses.asdict(cast(Any, config))


def flatten(nested: Settings, prefix: str = "") -> NewSettings:
  """{"a": {"b": 1}} to {"a.b": 1}.

  Args:
    nested: settings by name, groups as mappings.
    prefix: of all names, with its dot.
  """
  flat: dict[str, Any] = {}
  for name, value in nested.items():
    if isinstance(value, Mapping):
      flat.update(flatten(value, f"{prefix}{name}."))
    else:
      flat[prefix + name] = value
  return flat
