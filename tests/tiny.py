"""The smallest run that is still the real thing, and settings for tests of single terms."""

import dataclasses

from umr_jax.config import settings as config
from umr_jax.config.build import with_settings
from umr_jax.config.history import FORMER_DEFAULTS

# The defaults of before `Config()` was the paper, which a test on a CPU without weight files can
# afford; images are smaller, and lengths are the paper's or the test's own.
PLAIN = {
  name: value
  for name, value in FORMER_DEFAULTS.items()
  if name not in ("train.steps", "checkpoint.every", "log.panel_every")
} | {"data.image_size": 64}


def plain(**groups) -> config.Config:
  """The paper without its files and its costs; groups of settings by name change more."""
  settings = {f"{group}.{k}": v for group, some in groups.items() for k, v in some.items()}
  return with_settings(config.Config(), PLAIN | settings)


def plain_loss(**weights) -> config.LossConfig:
  """The weights of `plain`; others by name."""
  return dataclasses.replace(plain().loss, **weights)


def plain_render(**settings) -> config.RenderConfig:
  """The renderer of `plain`; other settings by name."""
  return dataclasses.replace(plain().render, **settings)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmallParts(config.PartsConfig):
  """Settings of parts whose constants may be changed, for tests of what reads them."""

  image_size: int = 32
  feature_size: int = 64
  encoder_steps: int = 2
  net_width: int = 8
  batch_size: int = 16
  learning_rate: float = 3e-3
  seed: int = 0


def tiny_config(cache, **train) -> config.Config:
  """Two rounds of a 42-vertex mesh on a dozen synthetic images at 64 px."""
  return plain(
    geometry={"level": 1, "texels_per_side": 2, "uv_height": 16},
    data={"train_images": 12, "test_images": 4, "cache": str(cache)},
    model={"encoder_width": 8},
    render={"image_size": 32, "sigma": 1e-3},
    train={"steps": 6, "batch_size": 4, "learning_rate": 1e-3, **train},
    em={"hypotheses": (1, 2)},
    checkpoint={"every": 2},
    log={"every": 2, "panel_every": 4},
  )


def flags(settings: config.Config) -> list[str]:
  """The configuration as command line flags; every setting, since a preset has its own."""
  values = config.flatten(dataclasses.asdict(settings))
  return [f"--config.{name}={value}" for name, value in values.items() if value != ""]
