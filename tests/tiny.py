"""The smallest run that is still the real thing."""

import dataclasses

from umr_jax.config import settings as config


def tiny_config(cache, **train) -> config.Config:
  """Two rounds of a 42-vertex mesh on a dozen synthetic images at 64 px."""
  return config.Config(
    geometry=config.GeometryConfig(level=1, texels_per_side=2, uv_height=16),
    data=config.DataConfig(image_size=64, train_images=12, test_images=4, cache=str(cache)),
    model=config.ModelConfig(encoder_width=8, feature_size=16, code_size=16),
    render=config.RenderConfig(image_size=32, sigma=1e-3),
    train=config.TrainConfig(**{"steps": 6, "batch_size": 4, "learning_rate": 1e-3, **train}),
    em=config.EMConfig(hypotheses=(1, 2)),
    checkpoint=config.CheckpointConfig(every=2),
    log=config.LogConfig(every=2, panel_every=4, tensorboard=False),
  )


def flags(settings: config.Config) -> list[str]:
  """The configuration as command line flags; every setting, since a preset has its own."""
  values = config.flatten(dataclasses.asdict(settings))
  return [f"--config.{name}={value}" for name, value in values.items() if value != ""]
