"""The embedded synthetic category, from images and silhouettes alone, on a laptop."""

import ml_collections

from umr_jax import config


def get_config() -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(
    config.to_dict(
      config.Config(
        geometry=config.GeometryConfig(level=2, texels_per_side=4, uv_height=64),
        data=config.DataConfig(source="synthetic", image_size=96),
        model=config.ModelConfig(encoder_width=32),
        render=config.RenderConfig(image_size=48, sigma=1e-4),
        train=config.TrainConfig(steps=1500, learning_rate=5e-4, schedule="cosine", ema_decay=0.99),
        em=config.EMConfig(hypotheses=(8,), restart=False),
      )
    )
  )
